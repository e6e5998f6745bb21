"""Bodies of requests: what they may be declared to be, and how large they may get."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.service.conftest import LIMITS, PNG, MakeClient, problem_of
from tests.service.toy import RED, image_file

pytestmark = pytest.mark.anyio


async def without_end() -> AsyncIterator[bytes]:
    while True:
        yield b"x"
        await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def short_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modeguard.service.http.middleware.LINGER_S", 0.05)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "imag e/png"},
        {"Content-Type": "image/png", "Content-Encoding": "gzip"},
    ],
)
async def test_a_body_that_says_it_is_something_else_is_refused_unread(
    make_client: MakeClient, headers: dict[str, str]
) -> None:
    async with make_client() as client:
        response = await client.post("/v1/detect", content=without_end(), headers=headers)
    problem_of(response, 415, "unsupported-media-type")
    assert response.headers["connection"] == "close", "nobody would bound the body that is still to come"


@pytest.mark.parametrize(
    "headers", [{"Content-Length": "100001"}, {"Content-Length": "50001", "Expect": "100-continue"}]
)
async def test_a_body_far_above_the_limit_is_refused_before_it_is_sent(
    make_client: MakeClient, headers: dict[str, str]
) -> None:
    async with make_client(**LIMITS) as client:
        response = await client.post("/v1/detect", content=without_end(), headers=PNG | headers)
    problem_of(response, 413, "body-too-large")
    assert response.headers["connection"] == "close"


async def test_a_body_that_was_read_leaves_the_connection_open(make_client: MakeClient) -> None:
    async with make_client() as client:
        answers = [
            await client.post("/v1/detect", content=image_file(RED), headers=PNG),
            await client.post("/v1/detect", content=b"no image", headers=PNG),
            await client.get("/livez"),
        ]
    assert [answer.status_code for answer in answers] == [200, 422, 200]
    assert not any("connection" in answer.headers for answer in answers)


async def test_the_sender_of_a_body_that_is_too_large_can_send_it_and_then_read_the_answer(
    make_client: MakeClient,
) -> None:
    sent: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        for size in (30_000, 30_000, 30_000):
            sent.append(size)
            yield bytes(size)

    async with make_client(**LIMITS) as client:
        response = await client.post("/v1/detect", content=chunks(), headers=PNG)
    problem_of(response, 413, "body-too-large")
    assert sum(sent) == 90_000


async def test_a_body_without_length_or_end_is_cut_off(make_client: MakeClient) -> None:
    async with make_client(max_body_bytes=20) as client:
        response = await client.post("/v1/detect", content=without_end(), headers=PNG)
    problem_of(response, 413, "body-too-large")
    assert response.headers["connection"] == "close"


async def test_a_body_as_large_as_the_limit_is_read(make_client: MakeClient) -> None:
    data = image_file(RED)
    async with make_client(max_body_bytes=len(data)) as client:
        response = await client.post("/v1/detect", content=data, headers=PNG)
    assert response.status_code == 200


async def test_a_client_that_is_too_slow_is_sent_away(make_client: MakeClient) -> None:
    async def one_byte_and_no_more() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with make_client(body_timeout_s=0.01) as client:
        response = await client.post("/v1/detect", content=one_byte_and_no_more(), headers=PNG)
    problem_of(response, 408, "body-timeout")
