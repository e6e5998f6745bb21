"""Forms of every kind: malformed, too long, and with strange file names."""

import pytest

from tests.service.conftest import LIMITS, MakeClient, problem_of
from tests.service.toy import RED, image_file

pytestmark = pytest.mark.anyio

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
async def test_malformed_multipart_is_refused(make_client: MakeClient, headers: dict[str, str], body: bytes) -> None:
    async with make_client(**LIMITS) as client:
        response = await client.post("/v1/detect", content=body, headers=headers)
    problem_of(response, 400, "malformed-multipart")


async def test_too_many_parts_are_refused_before_any_is_decoded(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "modeguard.service.inference.decoding.decode_image", lambda *_, **__: pytest.fail("an image was decoded")
    )
    async with make_client(**LIMITS) as client:
        response = await client.post("/v1/detect", content=PART * 500, headers=FORM)
    problem_of(response, 413, "too-many-images")


async def test_parts_without_a_file_name_or_with_a_strange_one_are_images_too(make_client: MakeClient) -> None:
    image = image_file(RED)
    body = (
        b'--cut\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + image + b"\r\n"
        b'--cut\r\nContent-Disposition: form-data; name="f"; filename="\xff\xfe' + b"a" * 999 + b'"\r\n\r\n' + image
    )
    async with make_client() as client:
        response = await client.post("/v1/detect", content=body + b"\r\n--cut--\r\n", headers=FORM)
    names = [result["filename"] for result in response.json()["results"]]
    assert names == [None, "\ufffd\ufffd" + "a" * 253]
