"""POST /v1/detect in one process: verdicts, abstention, curves, and every kind of bad request."""

import asyncio
import dataclasses
import io
import json
import math
import threading

import httpx
import pytest
import torch
from PIL import Image
from starlette.requests import ClientDisconnect
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from modeguard.detector import detect, to_pixels
from modeguard.service.app import create_app
from modeguard.service.http.presence import presence
from modeguard.service.inference import engine
from modeguard.service.inference.bundles import judge
from modeguard.templates_store.images import decode_image
from tests.service.conftest import LIMITS, PNG, problem_of
from tests.service.toy import BLUE, NEARLY_GREY, RED, image_file

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("image_format", "media_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("PNG", "application/octet-stream")],
)
async def test_a_raw_image_gets_the_verdict_of_the_detector(make_client, bundle, image_format, media_type):
    data = image_file(RED, image_format, quality=100)
    async with make_client() as client:
        response = await client.post("/v1/detect", content=data, headers={"Content-Type": media_type})
    assert response.status_code == 200
    found = detect(bundle.detector, bundle.classifier, to_pixels(decode_image(data, bundle.manifest.input)[None]))
    assert response.json() == {
        "model": {"name": "colours", "version": bundle.digest},
        "target_fpr": 0.05,
        "results": [
            {
                "filename": None,
                "index": 0,
                "predicted": {"index": 0, "name": "red"},
                "score": pytest.approx(found.score.item(), abs=1e-6),
                "p_value": pytest.approx(found.p_value.item(), abs=1e-6),
                "is_adversarial": False,
                "reason": None,
                "curve": None,
            }
        ],
    }


async def test_several_images_are_judged_in_their_order_whatever_their_fields_are_called(make_client):
    files = [
        ("a", ("natural.png", image_file(RED), "image/png")),
        ("b", ("../../etc/über\u202e.webp", image_file(NEARLY_GREY, "WEBP", lossless=True), "text/plain")),
        ("a", ("sky.jpg", image_file(BLUE, "JPEG"), "image/jpeg")),
    ]
    async with make_client() as client:
        response = await client.post("/v1/detect", files=files)
        alone = await client.post("/v1/detect", content=image_file(NEARLY_GREY), headers=PNG)
    results = response.json()["results"]
    assert [result["index"] for result in results] == [0, 1, 2]
    assert [result["filename"] for result in results] == ["natural.png", "../../etc/über\u202e.webp", "sky.jpg"]
    assert [result["is_adversarial"] for result in results] == [False, True, None]
    assert results[1]["score"] == alone.json()["results"][0]["score"]


async def test_a_class_without_template_is_never_guessed_about(make_client):
    async with make_client() as client:
        response = await client.post("/v1/detect?curve=true", content=image_file(BLUE), headers=PNG)
    (result,) = response.json()["results"]
    assert result["predicted"] == {"index": 2, "name": "blue"}
    assert result["reason"] == "no_template_for_class"
    assert [result[key] for key in ("score", "p_value", "is_adversarial", "curve")] == [None] * 4


async def test_the_curve_is_the_one_that_the_detector_saw(make_client, bundle):
    data = image_file(NEARLY_GREY)
    async with make_client() as client:
        response = await client.post("/v1/detect?curve=true", content=data, headers=PNG)
    curve = response.json()["results"][0]["curve"]
    images = to_pixels(decode_image(data, bundle.manifest.input)[None])
    curves = detect(bundle.detector, bundle.classifier, images).curves
    assert curve["alphas"] == list(bundle.detector.config.alphas)
    for key in ("losses", "margins"):
        torch.testing.assert_close(torch.tensor(curve[key]), getattr(curves, key)[0].float(), rtol=1e-5, atol=1e-5)


async def test_a_score_that_is_no_number_is_no_verdict(make_client, bundle, monkeypatch):
    def detect_nothing(*args, **kwargs):
        found = detect(*args, **kwargs)
        losses = found.curves.losses.clone()
        losses[:, :, 1] = math.inf
        curves = dataclasses.replace(found.curves, losses=losses)
        abstained = torch.ones_like(found.is_abstained)
        nothing = torch.full_like(found.score, math.nan)
        return dataclasses.replace(found, score=nothing, p_value=nothing, is_abstained=abstained, curves=curves)

    monkeypatch.setattr("modeguard.service.inference.bundles.detect", detect_nothing)
    async with make_client() as client:
        response = await client.post("/v1/detect?curve=1", content=image_file(RED), headers=PNG)
    (result,) = json.loads(response.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["results"]
    assert result["reason"] == "score_not_finite"
    assert [result[key] for key in ("score", "p_value", "is_adversarial")] == [None] * 3
    assert [losses[1] for losses in result["curve"]["losses"]] == [None, None]


def test_verdicts_do_not_depend_on_the_other_images_of_a_request(bundle):
    colours = [RED, NEARLY_GREY, BLUE, (30, 200, 40)]
    images = [decode_image(image_file(colour), bundle.manifest.input) for colour in colours]
    together = judge(bundle, images, rows_per_call=3, with_curves=True)
    for image, verdict in zip(images, together, strict=True):
        (alone,) = judge(bundle, [image], rows_per_call=256, with_curves=True)
        assert (alone.predicted, alone.is_adversarial, alone.reason) == (
            verdict.predicted,
            verdict.is_adversarial,
            verdict.reason,
        )
        assert alone.score == pytest.approx(verdict.score, abs=1e-6)


def sixteen_bit_file():
    buffer = io.BytesIO()
    Image.new("I;16", (8, 8), 40_000).save(buffer, "PNG")
    return buffer.getvalue()


def mode_file(mode, colour, image_format="PNG"):
    buffer = io.BytesIO()
    Image.new(mode, (8, 8), colour).save(buffer, image_format)
    return buffer.getvalue()


def animated_file():
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", "empty"),
        (lambda: b"this is a text file named .png\n", "unknown_format"),
        (lambda: image_file(RED, "GIF"), "unknown_format"),
        (lambda: image_file(RED, "JPEG", size=(64, 64))[:-300], "damaged"),
        (lambda: image_file(RED, size=(101, 100)), "too_many_pixels"),
        (lambda: mode_file("RGBA", (255, 0, 0, 128)), "transparent"),
        (lambda: mode_file("CMYK", (0, 0, 0, 0), "JPEG"), "unsupported_mode"),
        (animated_file, "animated"),
    ],
)
async def test_an_image_that_cannot_be_decoded_is_refused_and_named(make_client, make, reason):
    async with make_client(**LIMITS) as client:
        raw = await client.post("/v1/detect", content=make(), headers=PNG)
        parts = [("f", ("good.png", image_file(RED))), ("f", ("bad\n.png", make()))]
        multipart = await client.post("/v1/detect", files=parts)
    problem = problem_of(raw, 422, "invalid-image")
    assert (problem["reason"], problem["index"], problem["filename"]) == (reason, 0, None)
    problem = problem_of(multipart, 422, "invalid-image")
    assert (problem["reason"], problem["index"]) == (reason, 1)
    assert "image 1" in problem["detail"]


@pytest.mark.parametrize("make", [lambda: mode_file("L", 99), lambda: mode_file("P", 3), sixteen_bit_file])
async def test_images_of_other_modes_are_converted(make_client, make):
    async with make_client() as client:
        response = await client.post("/v1/detect", content=make(), headers=PNG)
    assert response.status_code == 200


async def test_a_wrong_option_is_named(make_client):
    async with make_client() as client:
        response = await client.post("/v1/detect?curve=perhaps", content=image_file(RED), headers=PNG)
    problem = problem_of(response, 422, "invalid-request")
    assert [fault["location"] for fault in problem["errors"]] == ["query.curve"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/v1/detect", 405), ("POST", "/v1/detect/", 404), ("GET", "/redoc", 404)],
)
async def test_wrong_addresses_are_problems_too(make_client, method, path, status):
    async with make_client() as client:
        problem_of(await client.request(method, path), status, None)


async def test_an_unforeseen_error_says_nothing_but_its_id(make_client, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr("modeguard.service.inference.bundles.detect", fail)
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


async def test_a_client_that_hangs_up_is_no_error(make_settings, bundle):
    app = create_app(make_settings(max_pending=1), bundle)
    scope = {"type": "http", "method": "POST", "path": "/v1/detect", "raw_path": b"/v1/detect", "query_string": b""}
    scope |= {"headers": [(b"content-type", b"image/png")], "http_version": "1.1", "scheme": "http"}
    messages = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    async def send(message):
        pytest.fail(f"nobody is there to get {message}")

    await app(scope, receive, send)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        response = await client.post("/v1/detect", content=image_file(RED), headers=PNG)
    assert response.status_code == 200, "its place was given back"


class Departing:
    """A request whose client hangs up when it is told to."""

    def __init__(self):
        self.has_left = asyncio.Event()

    async def receive(self):
        await self.has_left.wait()
        return {"type": "http.disconnect"}


async def test_what_nobody_waits_for_any_more_is_not_begun(make_settings, bundle, monkeypatch):
    """Three requests; while the first is judged the clients of the first and the third hang up."""
    started, opened, n_judged = threading.Event(), threading.Event(), []

    def judge_slowly(*_, **__):
        n_judged.append(1)
        started.set()
        assert opened.wait(60)
        return []

    monkeypatch.setattr(engine, "judge", judge_slowly)
    worker, requests = engine.Engine(make_settings(), bundle), [Departing() for _ in range(3)]

    async def ask(request):
        async with presence(request) as is_wanted:
            return await worker.verdicts([], with_curves=False, is_wanted=is_wanted)

    tasks = [asyncio.create_task(ask(request)) for request in requests]
    while not started.is_set():
        await asyncio.sleep(0.001)
    for request in (requests[0], requests[2]):
        request.has_left.set()
    await asyncio.sleep(0.01)
    opened.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    worker.close()
    assert ends[:2] == [[], []]
    assert isinstance(ends[2], ClientDisconnect)
    assert len(n_judged) == 2
