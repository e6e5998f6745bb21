"""The addresses of the service."""

import dataclasses
import math
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from modeguard.service.api.schemas import (
    DetectResponse,
    Health,
    ImageVerdict,
    Limits,
    LossCurve,
    ModelDescription,
    ModelVersion,
    PredictedClass,
    ProblemDetails,
)
from modeguard.service.http.body import check_media_type, read_body
from modeguard.service.http.presence import presence
from modeguard.service.inference.bundles import Verdict
from modeguard.service.inference.engine import Engine
from modeguard.templates_store.bundles.bundle import Bundle
from modeguard.templates_store.classifiers.loading import dtype_name
from modeguard.templates_store.images import ALLOWED_FORMATS

router = APIRouter()

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILES = {
    "schema": {
        "type": "object",
        "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        "description": "every part is an image, whatever its field is called",
    }
}
_IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "description": "one image as it is in its file, or one or several as a form",
        "content": {
            "image/png": _BINARY,
            "image/jpeg": _BINARY,
            "image/webp": _BINARY,
            "application/octet-stream": _BINARY,
            "multipart/form-data": _FILES,
        },
    }
}
_DETECT_PROBLEMS = {
    400: "malformed multipart body",
    408: "the body took too long",
    413: "too many bytes or images",
    415: "the body is declared to be something else than images",
    422: "an image cannot be decoded (`index` says which, `reason` why), or an option is wrong",
    429: "too many requests are pending; try again after `Retry-After` seconds",
    503: "the bundle is still being loaded",
}


def _problems(descriptions: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ProblemDetails, "description": text} for status, text in descriptions.items()}


def _engine_of(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


EngineOfApp = Annotated[Engine, Depends(_engine_of)]


@router.post(
    "/v1/detect",
    tags=["detection"],
    summary="Say of images whether they are adversarial",
    responses=_problems(_DETECT_PROBLEMS),
    openapi_extra=_IMAGE_BODY,
)
async def detect_images(
    request: Request,
    engine: EngineOfApp,
    curve: Annotated[bool, Query(description="also return the loss curves that explain the verdicts")] = False,
) -> DetectResponse:
    """Send one image as the body, or several as a multipart form; get a verdict on each, in their order.

    PNG, JPEG and WebP are taken. One image that cannot be decoded fails the whole request, and the problem says
    which. Where the detector has no template of the predicted class it abstains: `is_adversarial` is null and `reason`
    says why.
    """
    bundle, settings = engine.bundle, engine.settings
    check_media_type(request)
    with engine.admission():
        body = await read_body(request, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
        async with presence(request) as is_wanted:
            filenames, images = await engine.images(request.headers["content-type"], body, is_wanted=is_wanted)
            del body  # it may be large, and the inference thread may be busy for a while
            verdicts = await engine.verdicts(images, with_curves=curve, is_wanted=is_wanted)
    results = [
        _image_verdict(bundle, index, filename, verdict)
        for index, (filename, verdict) in enumerate(zip(filenames, verdicts, strict=True))
    ]
    return DetectResponse(model=_version(bundle), target_fpr=bundle.detector.config.target_fpr, results=results)


@router.get(
    "/v1/model",
    tags=["detection"],
    summary="What is being served",
    responses=_problems({503: "the bundle is still being loaded"}),
)
async def describe_model(engine: EngineOfApp) -> ModelDescription:
    """Classes, input, configuration, measurements and limits of the bundle being served."""
    bundle, settings = engine.bundle, engine.settings
    covered = set(bundle.detector.templates.classes.tolist())
    return ModelDescription(
        model=_version(bundle),
        class_names=list(bundle.manifest.class_names),
        classes_without_template=[i for i in range(len(bundle.manifest.class_names)) if i not in covered],
        input=dataclasses.asdict(bundle.manifest.input),
        classifier=bundle.manifest.classifier.to_dict(),
        compute_dtype=dtype_name(bundle.classifier.compute_dtype),
        calibrated_dtype=bundle.manifest.compute_dtype,
        detector=dataclasses.asdict(bundle.detector.config),
        measured={key: _json(value) for key, value in bundle.manifest.measured.items()},
        limits=Limits(
            max_body_bytes=settings.max_body_bytes,
            max_images=settings.max_images,
            max_pixels=settings.max_pixels,
            formats=sorted(ALLOWED_FORMATS),
        ),
    )


@router.get("/livez", tags=["probes"], summary="Whether the process answers")
async def livez() -> Health:
    """Always ok: that it is answered is the answer."""
    return Health(status="ok")


@router.get(
    "/readyz",
    tags=["probes"],
    summary="Whether images can be sent",
    responses=_problems({503: "the bundle is still being loaded"}),
)
async def readyz(engine: EngineOfApp) -> Health:
    """Ok once the bundle is loaded and verified."""
    _ = engine.bundle
    return Health(status="ok")


def _version(bundle: Bundle) -> ModelVersion:
    return ModelVersion(name=bundle.manifest.name, version=bundle.digest)


def _image_verdict(bundle: Bundle, index: int, filename: str | None, verdict: Verdict) -> ImageVerdict:
    curve = None
    if verdict.losses is not None and verdict.margins is not None:
        curve = LossCurve(alphas=list(bundle.detector.config.alphas), losses=verdict.losses, margins=verdict.margins)
    return ImageVerdict(
        filename=filename,
        index=index,
        predicted=PredictedClass(index=verdict.predicted, name=bundle.manifest.class_names[verdict.predicted]),
        score=verdict.score,
        p_value=verdict.p_value,
        is_adversarial=verdict.is_adversarial,
        reason=verdict.reason,
        curve=curve,
    )


def _json(value: Any) -> Any:
    """A manifest's value with null for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {str(key): _json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
