"""The application around the detection: probes, description, admission, the event loop, the API's documentation."""

import asyncio
import threading

import pytest

from modeguard.service.api.schemas import DetectResponse
from modeguard.service.app import create_app
from modeguard.service.errors import PROBLEMS
from modeguard.service.http.middleware import RequestEnvelope
from modeguard.service.inference import engine
from tests.service.conftest import PNG, problem_of
from tests.service.toy import RED, image_file

pytestmark = pytest.mark.anyio


async def test_probes(make_client):
    async with make_client() as client:
        for path in ("/livez", "/readyz"):
            response = await client.get(path)
            assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_until_the_bundle_is_loaded_only_livez_is_well(make_client):
    async with make_client(None) as client:
        assert (await client.get("/livez")).status_code == 200
        for method, path in [("GET", "/readyz"), ("GET", "/v1/model"), ("POST", "/v1/detect")]:
            response = await client.request(method, path)
            problem_of(response, 503, "not-ready")
            assert int(response.headers["retry-after"]) >= 1


async def loaded(app, outcomes):
    async with app.router.lifespan_context(app):
        while not outcomes:
            await asyncio.sleep(0.01)


async def test_the_bundle_is_loaded_when_the_application_starts(make_settings, bundle):
    outcomes = []
    app = create_app(make_settings(), on_loaded=outcomes.append)
    await loaded(app, outcomes)
    assert outcomes == [None]
    assert app.state.engine.bundle.digest == bundle.digest


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bundle": "/nowhere"}, "/nowhere"),
        ({"allowed_factories": ()}, "allowed"),
        ({"device": "abacus"}, "device"),
        ({"device": "cuda:99"}, "device"),
    ],
)
async def test_a_bundle_that_cannot_be_loaded_is_reported(make_settings, changes, says):
    outcomes = []
    await loaded(create_app(make_settings(**changes), on_loaded=outcomes.append), outcomes)
    assert says in str(outcomes[0])


async def test_what_is_served_is_described(make_client, bundle):
    async with make_client(max_images=7) as client:
        model = (await client.get("/v1/model")).json()
    assert model["model"] == {"name": "colours", "version": bundle.digest}
    assert model["class_names"] == ["red", "green", "blue"]
    assert model["classes_without_template"] == [2]
    assert model["input"] == {"shape": [3, 8, 8], "resize_to": None, "allow_resize": True}
    assert model["classifier"]["architecture"] == "tests.service.toy:BrightestChannel"
    assert model["detector"]["alphas"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert model["measured"] == {"auroc": {"none": 1.0}}
    assert model["limits"]["max_images"] == 7


class Gate:
    """Holds whoever calls it until it is opened, and knows on which thread that was."""

    def __init__(self, then):
        self.entered, self.opened, self._then = threading.Event(), threading.Event(), then
        self.thread_names = []

    def __call__(self, *args, **kwargs):
        self.thread_names.append(threading.current_thread().name)
        self.entered.set()
        assert self.opened.wait(60)
        return self._then(*args, **kwargs)


async def until(event):
    while not event.is_set():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(("name", "thread"), [("judge", "inference"), ("decode_image", "decoding")])
async def test_the_event_loop_answers_while_images_are_worked_on(make_client, monkeypatch, name, thread):
    gate = Gate(getattr(engine, name))
    monkeypatch.setattr(engine, name, gate)
    async with make_client() as client:
        pending = asyncio.create_task(client.post("/v1/detect", content=image_file(RED), headers=PNG))
        await until(gate.entered)
        assert (await client.get("/livez")).status_code == 200
        assert not pending.done()
        gate.opened.set()
        assert (await pending).status_code == 200
    assert gate.thread_names[0].startswith(thread)


async def test_requests_above_the_limit_are_sent_away_before_their_body_is_read(make_client, monkeypatch):
    gate = Gate(engine.judge)
    monkeypatch.setattr(engine, "judge", gate)

    async def without_end():
        while True:
            yield b"x"
            await asyncio.sleep(0.001)

    monkeypatch.setattr("modeguard.service.http.middleware.LINGER_S", 0.05)
    async with make_client(max_pending=2) as client:
        pending = [
            asyncio.create_task(client.post("/v1/detect", content=image_file(RED), headers=PNG)) for _ in range(2)
        ]
        await until(gate.entered)
        response = await client.post("/v1/detect", content=without_end(), headers=PNG)
        problem_of(response, 429, "busy")
        assert int(response.headers["retry-after"]) >= 1
        gate.opened.set()
        assert [answer.status_code for answer in await asyncio.gather(*pending)] == [200, 200]
        assert (await client.post("/v1/detect", content=image_file(RED), headers=PNG)).status_code == 200


async def test_one_image_after_the_other_is_judged(make_client, monkeypatch):
    judge, running, overlaps = engine.judge, threading.Lock(), []

    def alone(*args, **kwargs):
        if not running.acquire(blocking=False):
            overlaps.append(True)
        try:
            return judge(*args, **kwargs)
        finally:
            running.release()

    monkeypatch.setattr(engine, "judge", alone)
    async with make_client() as client:
        posts = [client.post("/v1/detect", content=image_file(RED), headers=PNG) for _ in range(20)]
        answers = await asyncio.gather(*posts)
    assert {answer.status_code for answer in answers} == {200}
    assert not overlaps


async def test_a_client_that_is_too_slow_is_sent_away(make_client):
    async def one_byte_and_no_more():
        yield b"x"
        await asyncio.Event().wait()

    async with make_client(body_timeout_s=0.01) as client:
        response = await client.post("/v1/detect", content=one_byte_and_no_more(), headers=PNG)
    problem_of(response, 408, "body-timeout")


async def test_an_answer_that_breaks_off_is_not_continued():
    async def breaks_off(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half way")

    sent = []

    async def send(message):
        sent.append(message["type"])

    with pytest.raises(RuntimeError, match="half way"):
        await RequestEnvelope(breaks_off)({"type": "http", "method": "GET", "headers": []}, None, send)
    assert sent == ["http.response.start"]


async def test_the_documentation_shows_bodies_answers_and_problems(make_client):
    async with make_client() as client:
        assert "swagger" in (await client.get("/docs")).text.lower()
        api = (await client.get("/openapi.json")).json()
    assert set(api["paths"]) == {"/v1/detect", "/v1/model", "/livez", "/readyz"}
    detect = api["paths"]["/v1/detect"]["post"]
    bodies = {"image/png", "image/jpeg", "image/webp", "application/octet-stream", "multipart/form-data"}
    assert set(detect["requestBody"]["content"]) == bodies
    assert {int(status) for status in detect["responses"]} == {200} | {kind.status for kind in PROBLEMS.values()}
    for status, response in detect["responses"].items():
        wanted = "application/json" if status == "200" else "application/problem+json"
        assert list(response["content"]) == [wanted]
        assert response["description"]
    (example,) = api["components"]["schemas"]["DetectResponse"]["examples"]
    assert set(example["results"][0]) == set(api["components"]["schemas"]["ImageVerdict"]["required"])
    assert DetectResponse.model_validate(example).model_dump() == example
