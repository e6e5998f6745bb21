"""POST /v1/detect: verdicts on the images of a request."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, FiniteFloat

from modeguard.detector import NO_TEMPLATE, NOT_FINITE, Verdict
from modeguard.service.api.dependencies import EngineOfApp, SettingsOfApp
from modeguard.service.api.schemas import NOT_READY, ModelVersion, problem_responses
from modeguard.service.http import check_media_type, client_presence, read_body, split_body
from modeguard.templates_store.bundles import Bundle

router = APIRouter(tags=["detection"])

Curve = Annotated[
    list[list[FiniteFloat | None]],
    Field(description="one list a template, one number a point; null where the classifier's answer is not finite"),
]


class PredictedClass(BaseModel):
    """The class that the classifier predicts."""

    index: int = Field(description="place among the classes, from 0", examples=[3])
    name: str = Field(examples=["three"])


class LossCurve(BaseModel):
    """The classifier along the straight paths from the image to the templates of its predicted class."""

    alphas: list[FiniteFloat] = Field(description="points of the path: 0 at the image, 1 at the template")
    losses: Curve = Field(description="cross-entropy of the predicted class along each path")
    margins: Curve = Field(description="logit of the predicted class minus the largest other, along each path")


class ImageVerdict(BaseModel):
    """What is said of one image."""

    filename: str | None = Field(description="as the client named it; null for a raw body", examples=["three.png"])
    index: int = Field(description="place of the image in the request, from 0", examples=[0])
    predicted: PredictedClass
    score: FiniteFloat | None = Field(description="in [0, 1], higher is more adversarial; null if abstained")
    p_value: FiniteFloat | None = Field(
        description="how often a natural image scores at least as high, split-conformal; null if abstained"
    )
    is_adversarial: bool | None = Field(
        description="whether the p-value is at most the target FPR; null if abstained, which is not the same as false"
    )
    reason: str | None = Field(
        description=f'why the detector abstained, or null: "{NO_TEMPLATE}" (it knows no template of the predicted '
        f'class) or "{NOT_FINITE}" (the classifier\'s answer is not finite)'
    )
    curve: LossCurve | None = Field(description="null unless asked for with `curve=true`, or if there is no template")


class DetectResponse(BaseModel):
    """Verdicts on the images of a request, in their order."""

    model: ModelVersion
    target_fpr: FiniteFloat = Field(
        description="rate of natural images that may be called adversarial", examples=[0.05]
    )
    results: list[ImageVerdict]


EXAMPLE = {
    "model": {"name": "digits", "version": "5f0c1e" + 58 * "0"},
    "target_fpr": 0.05,
    "results": [
        {
            "filename": "three.png",
            "index": 0,
            "predicted": {"index": 3, "name": "three"},
            "score": 0.91,
            "p_value": 0.004,
            "is_adversarial": True,
            "reason": None,
            "curve": None,
        }
    ],
}

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
_PROBLEMS = {
    400: "malformed multipart body",
    408: "the body took too long",
    413: "too many bytes or images",
    415: "the body is declared to be something else than images",
    422: "an image cannot be decoded (`index` says which, `reason` why), or an option is wrong",
    429: "too many requests are pending; try again after `Retry-After` seconds",
    **NOT_READY,
}


@router.post(
    "/v1/detect",
    summary="Say of images whether they are adversarial",
    responses=problem_responses(_PROBLEMS),
    openapi_extra=_IMAGE_BODY,
)
async def detect_images(
    request: Request,
    engine: EngineOfApp,
    settings: SettingsOfApp,
    curve: Annotated[bool, Query(description="also return the loss curves that explain the verdicts")] = False,
) -> DetectResponse:
    """Send one image as the body, or several as a multipart form; get a verdict on each, in their order.

    PNG, JPEG and WebP are taken. One image that cannot be decoded fails the whole request, and the problem says
    which. Where the detector has no template of the predicted class it abstains: `is_adversarial` is null and `reason`
    says why.
    """
    served = engine.current
    check_media_type(request)
    with engine.admission():
        body = await read_body(request, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
        files = partial(split_body, request.headers["content-type"], body, max_images=settings.max_images)
        async with client_presence(request) as is_wanted:
            images = await engine.decode(served, files, is_wanted=is_wanted)
            del body, files  # they may be large, and the inference thread may be busy for a while
            pixels = [image.pixels for image in images]
            verdicts = await engine.judge(served, pixels, with_curves=curve, is_wanted=is_wanted)
    results = [
        _image_verdict(served.bundle, index, image.filename, verdict)
        for index, (image, verdict) in enumerate(zip(images, verdicts, strict=True))
    ]
    return DetectResponse(
        model=ModelVersion.of(served.bundle), target_fpr=served.bundle.detector.config.target_fpr, results=results
    )


def _image_verdict(bundle: Bundle, index: int, filename: str | None, verdict: Verdict) -> ImageVerdict:
    curves = verdict.curves
    return ImageVerdict(
        filename=filename,
        index=index,
        predicted=PredictedClass(index=verdict.predicted, name=bundle.manifest.class_names[verdict.predicted]),
        score=verdict.score,
        p_value=verdict.p_value,
        is_adversarial=verdict.is_flagged,
        reason=verdict.reason,
        curve=None if curves is None else LossCurve.model_validate(curves, from_attributes=True),
    )
