"""The application put together: loading when it starts, requests side by side, the description of all its APIs."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI

from modeguard.detector import ModeguardError, Verdict
from modeguard.service.api import DetectResponse
from modeguard.service.app import create_app
from modeguard.service.http import PROBLEMS
from modeguard.templates_store.bundles import Bundle
from tests.service.conftest import PNG, Gate, MakeClient, MakeSettings, problem_of, put_in_place_of
from tests.service.toy import RED, image_file

pytestmark = pytest.mark.anyio
JUDGE = "modeguard.service.inference.scheduler.judge"


async def loaded(app: FastAPI, outcomes: list[ModeguardError | None]) -> None:
    async with app.router.lifespan_context(app):
        while not outcomes:
            await asyncio.sleep(0.01)


async def test_the_bundle_is_loaded_when_the_application_starts(make_settings: MakeSettings, bundle: Bundle) -> None:
    outcomes: list[ModeguardError | None] = []
    app = create_app(make_settings(), on_loaded=outcomes.append)
    await loaded(app, outcomes)
    assert outcomes == [None]
    assert app.state.engine.current.bundle.digest == bundle.digest


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bundle": "/nowhere"}, "/nowhere"),
        ({"allowed_factories": ()}, "allowed"),
        ({"device": "abacus"}, "device"),
        ({"device": "cuda:99"}, "device"),
    ],
)
async def test_a_bundle_that_cannot_be_loaded_is_reported(
    make_settings: MakeSettings, changes: dict[str, object], says: str
) -> None:
    outcomes: list[ModeguardError | None] = []
    await loaded(create_app(make_settings(**changes), on_loaded=outcomes.append), outcomes)
    assert says in str(outcomes[0])


async def until(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(("name", "thread"), [("scheduler.judge", "inference"), ("decoding.decode_image", "decoding")])
async def test_the_event_loop_answers_while_images_are_worked_on(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, name: str, thread: str
) -> None:
    gate = put_in_place_of(f"modeguard.service.inference.{name}", Gate, monkeypatch)
    async with make_client() as client:
        pending = asyncio.create_task(client.post("/v1/detect", content=image_file(RED), headers=PNG))
        await until(gate.entered)
        assert (await client.get("/livez")).status_code == 200
        assert not pending.done()
        gate.opened.set()
        assert (await pending).status_code == 200
    assert gate.thread_names[0].startswith(thread)


async def test_requests_above_the_limit_are_sent_away_before_their_body_is_read(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = put_in_place_of(JUDGE, Gate, monkeypatch)

    async def without_end() -> AsyncIterator[bytes]:
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


async def test_one_image_after_the_other_is_judged(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    running, overlaps = threading.Lock(), []

    def noting_overlaps(judge: Callable[..., list[Verdict]]) -> Callable[..., list[Verdict]]:
        def alone(*args: Any, **kwargs: Any) -> list[Verdict]:
            if not running.acquire(blocking=False):
                overlaps.append(True)
            try:
                return judge(*args, **kwargs)
            finally:
                running.release()

        return alone

    put_in_place_of(JUDGE, noting_overlaps, monkeypatch)
    async with make_client() as client:
        posts = [client.post("/v1/detect", content=image_file(RED), headers=PNG) for _ in range(20)]
        answers = await asyncio.gather(*posts)
    assert {answer.status_code for answer in answers} == {200}
    assert not overlaps


async def test_the_documentation_shows_bodies_answers_and_problems(make_client: MakeClient) -> None:
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
