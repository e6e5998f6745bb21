"""Bodies of requests: what they may be declared to be, how large they may get, and multipart of every kind."""

import asyncio

import pytest

from tests.service.conftest import LIMITS, PNG, problem_of
from tests.service.toy import RED, image_file

pytestmark = pytest.mark.anyio


async def without_end():
    while True:
        yield b"x"
        await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def short_farewell(monkeypatch):
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
async def test_a_body_that_says_it_is_something_else_is_refused_unread(make_client, headers):
    async with make_client() as client:
        response = await client.post("/v1/detect", content=without_end(), headers=headers)
    problem_of(response, 415, "unsupported-media-type")
    assert response.headers["connection"] == "close", "nobody would bound the body that is still to come"


@pytest.mark.parametrize(
    "headers", [{"Content-Length": "100001"}, {"Content-Length": "50001", "Expect": "100-continue"}]
)
async def test_a_body_far_above_the_limit_is_refused_before_it_is_sent(make_client, headers):
    async with make_client(**LIMITS) as client:
        response = await client.post("/v1/detect", content=without_end(), headers=PNG | headers)
    problem_of(response, 413, "body-too-large")
    assert response.headers["connection"] == "close"


async def test_a_body_that_was_read_leaves_the_connection_open(make_client):
    async with make_client() as client:
        answers = [
            await client.post("/v1/detect", content=image_file(RED), headers=PNG),
            await client.post("/v1/detect", content=b"no image", headers=PNG),
            await client.get("/livez"),
        ]
    assert [answer.status_code for answer in answers] == [200, 422, 200]
    assert not any("connection" in answer.headers for answer in answers)


async def test_the_sender_of_a_body_that_is_too_large_can_send_it_and_then_read_the_answer(make_client):
    sent = []

    async def chunks():
        for size in (30_000, 30_000, 30_000):
            sent.append(size)
            yield bytes(size)

    async with make_client(**LIMITS) as client:
        response = await client.post("/v1/detect", content=chunks(), headers=PNG)
    problem_of(response, 413, "body-too-large")
    assert sum(sent) == 90_000


async def test_a_body_without_length_or_end_is_cut_off(make_client):
    async with make_client(max_body_bytes=20) as client:
        response = await client.post("/v1/detect", content=without_end(), headers=PNG)
    problem_of(response, 413, "body-too-large")
    assert response.headers["connection"] == "close"


async def test_a_body_as_large_as_the_limit_is_read(make_client):
    data = image_file(RED)
    async with make_client(max_body_bytes=len(data)) as client:
        response = await client.post("/v1/detect", content=data, headers=PNG)
    assert response.status_code == 200


FORM = {"Content-Type": "multipart/form-data; boundary=cut"}
PART = b'--cut\r\nContent-Disposition: form-data; name="f"; filename="f.png"\r\n\r\n'


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (FORM, b""),
        (FORM, b"--cut--\r\n"),
        (FORM, b"no multipart at all"),
        (FORM, PART + b"no end"),
        (FORM, b"--cut\r\nContent-Disposition: form-data\r\nname\x00: y\r\n\r\nx\r\n--cut--\r\n"),
        (FORM, b"--cut\r\n" + b"X-A: b\r\n" * 5000 + b"\r\n\r\n--cut--\r\n"),
        (FORM, b"--cut\r\nX-Long: " + b"a" * 40_000 + b"\r\n\r\n\r\n--cut--\r\n"),
        ({"Content-Type": "multipart/form-data"}, PART + b"x\r\n--cut--\r\n"),
        ({"Content-Type": "multipart/form-data; boundary=" + "b" * 300}, b""),
    ],
)
async def test_malformed_multipart_is_refused(make_client, headers, body):
    async with make_client(**LIMITS) as client:
        response = await client.post("/v1/detect", content=body, headers=headers)
    problem_of(response, 400, "malformed-multipart")


async def test_too_many_parts_are_refused_before_any_is_decoded(make_client, monkeypatch):
    monkeypatch.setattr(
        "modeguard.service.inference.engine.decode_image", lambda *_, **__: pytest.fail("an image was decoded")
    )
    async with make_client(**LIMITS) as client:
        response = await client.post("/v1/detect", content=PART * 500, headers=FORM)
    problem_of(response, 413, "too-many-images")


async def test_parts_without_a_file_name_or_with_a_strange_one_are_images_too(make_client):
    image = image_file(RED)
    body = (
        b'--cut\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + image + b"\r\n"
        b'--cut\r\nContent-Disposition: form-data; name="f"; filename="\xff\xfe' + b"a" * 999 + b'"\r\n\r\n' + image
    )
    async with make_client() as client:
        response = await client.post("/v1/detect", content=body + b"\r\n--cut--\r\n", headers=FORM)
    names = [result["filename"] for result in response.json()["results"]]
    assert names == [None, "\ufffd\ufffd" + "a" * 253]
