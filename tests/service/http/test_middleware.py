"""The envelope of a request: what happens when the code below has a fault, or the client is gone."""

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from modeguard.service.app import create_app
from modeguard.service.http import RequestEnvelope
from modeguard.service.inference import NoLongerWantedError
from modeguard.templates_store.bundles import Bundle
from tests.service.conftest import PNG, MakeClient, MakeSettings, problem_of
from tests.service.toy import RED, image_file

pytestmark = pytest.mark.anyio


async def nothing() -> Message:
    pytest.fail("nobody asked for a body")


async def test_an_unforeseen_error_says_nothing_but_its_id(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("modeguard.service.inference.judging.detect", fail)
    async with make_client() as client:
        with capture_logs(processors=[merge_contextvars]) as lines:
            response = await client.post("/v1/detect", content=image_file(RED), headers=PNG)
        assert (await client.get("/livez")).status_code == 200
    problem = problem_of(response, 500, "internal-error")
    assert "secret" not in response.text
    assert [(line["event"], line["log_level"], line["request_id"]) for line in lines] == [
        ("unforeseen error", "error", problem["request_id"]),
        ("request", "error", problem["request_id"]),
    ]
    assert lines[0]["exc_info"]


async def test_an_answer_that_breaks_off_is_not_continued() -> None:
    async def breaks_off(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half way")

    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])

    with pytest.raises(RuntimeError, match="half way"):
        await RequestEnvelope(breaks_off)({"type": "http", "method": "GET", "headers": []}, nothing, send)
    assert sent == ["http.response.start"]


async def test_a_client_that_hangs_up_is_no_error(make_settings: MakeSettings, bundle: Bundle) -> None:
    app = create_app(make_settings(max_pending=1), bundle)
    scope = {"type": "http", "method": "POST", "path": "/v1/detect", "raw_path": b"/v1/detect", "query_string": b""}
    scope |= {"headers": [(b"content-type", b"image/png")], "http_version": "1.1", "scheme": "http"}
    messages: list[Message] = [
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        pytest.fail(f"nobody is there to get {message}")

    await app(scope, receive, send)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        response = await client.post("/v1/detect", content=image_file(RED), headers=PNG)
    assert response.status_code == 200, "its place was given back"


async def test_work_that_nobody_waits_for_is_logged_as_a_client_that_hung_up() -> None:
    async def drops(_: Scope, __: Receive, ___: Send) -> None:
        raise NoLongerWantedError

    async def send(message: Message) -> None:
        pytest.fail(f"nobody is there to get {message}")

    with capture_logs() as lines:
        await RequestEnvelope(drops)({"type": "http", "method": "POST", "headers": []}, nothing, send)
    assert [(line["event"], line["log_level"]) for line in lines] == [("client hung up", "info")]
