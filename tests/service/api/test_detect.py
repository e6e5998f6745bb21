"""POST /v1/detect in one process: verdicts, abstention, curves, and every kind of bad request."""

import dataclasses
import io
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

from modeguard.detector import Detections, detect, to_pixels
from modeguard.templates_store.bundles import Bundle
from modeguard.templates_store.images import decode_image
from tests.service.conftest import LIMITS, PNG, MakeClient, problem_of
from tests.service.toy import BLUE, NEARLY_GREY, RED, image_file

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("image_format", "media_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("PNG", "application/octet-stream")],
)
async def test_a_raw_image_gets_the_verdict_of_the_detector(
    make_client: MakeClient, bundle: Bundle, image_format: str, media_type: str
) -> None:
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


async def test_several_images_are_judged_in_their_order_whatever_their_fields_are_called(
    make_client: MakeClient,
) -> None:
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


async def test_a_class_without_template_is_never_guessed_about(make_client: MakeClient) -> None:
    async with make_client() as client:
        response = await client.post("/v1/detect?curve=true", content=image_file(BLUE), headers=PNG)
    (result,) = response.json()["results"]
    assert result["predicted"] == {"index": 2, "name": "blue"}
    assert result["reason"] == "no_template_for_class"
    assert [result[key] for key in ("score", "p_value", "is_adversarial", "curve")] == [None] * 4


async def test_the_curve_is_the_one_that_the_detector_saw(make_client: MakeClient, bundle: Bundle) -> None:
    data = image_file(NEARLY_GREY)
    async with make_client() as client:
        response = await client.post("/v1/detect?curve=true", content=data, headers=PNG)
    curve = response.json()["results"][0]["curve"]
    images = to_pixels(decode_image(data, bundle.manifest.input)[None])
    found = detect(bundle.detector, bundle.classifier, images)
    curves = found.curves
    assert curve["alphas"] == list(found.alphas) == [0.0, 0.25, 0.5, 0.75, 1.0]
    for key in ("losses", "margins"):
        torch.testing.assert_close(torch.tensor(curve[key]), getattr(curves, key)[0].float(), rtol=1e-5, atol=1e-5)


async def test_a_score_that_is_no_number_is_no_verdict(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detect_nothing(*args: Any, **kwargs: Any) -> Detections:
        found = detect(*args, **kwargs)
        assert found.curves is not None
        losses = found.curves.losses.clone()
        losses[:, :, 1] = math.inf
        curves = dataclasses.replace(found.curves, losses=losses)
        abstained = torch.ones_like(found.is_abstained)
        nothing = torch.full_like(found.score, math.nan)
        return dataclasses.replace(found, score=nothing, p_value=nothing, is_abstained=abstained, curves=curves)

    monkeypatch.setattr("modeguard.service.inference.judging.detect", detect_nothing)
    async with make_client() as client:
        response = await client.post("/v1/detect?curve=1", content=image_file(RED), headers=PNG)
    (result,) = json.loads(response.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["results"]
    assert result["reason"] == "score_not_finite"
    assert [result[key] for key in ("score", "p_value", "is_adversarial")] == [None] * 3
    assert [losses[1] for losses in result["curve"]["losses"]] == [None, None]


def sixteen_bit_file() -> bytes:
    buffer = io.BytesIO()
    Image.new("I;16", (8, 8), 40_000).save(buffer, "PNG")
    return buffer.getvalue()


def mode_file(mode: str, colour: float | tuple[int, ...], image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (8, 8), colour).save(buffer, image_format)
    return buffer.getvalue()


def animated_file() -> bytes:
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
async def test_an_image_that_cannot_be_decoded_is_refused_and_named(
    make_client: MakeClient, make: Callable[[], bytes], reason: str
) -> None:
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
async def test_images_of_other_modes_are_converted(make_client: MakeClient, make: Callable[[], bytes]) -> None:
    async with make_client() as client:
        response = await client.post("/v1/detect", content=make(), headers=PNG)
    assert response.status_code == 200
