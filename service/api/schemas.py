"""The JSON that goes out, as the OpenAPI description shows it."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat

from modeguard.detector.detect import NO_TEMPLATE, NOT_FINITE

Curve = Annotated[
    list[list[FiniteFloat | None]],
    Field(description="one list a template, one number a point; null where the classifier's answer is not finite"),
]


class ModelVersion(BaseModel):
    """What judged the images."""

    name: str = Field(description="name of the bundle", examples=["digits"])
    version: str = Field(description="digest of the bundle: sha256, hexadecimal", examples=["5f0c1e" + 58 * "0"])


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


class Limits(BaseModel):
    """What a request may have."""

    max_body_bytes: int
    max_images: int
    max_pixels: int = Field(description="of an image, width times height")
    formats: list[str]


class ModelDescription(BaseModel):
    """What is being served, and how well it did when it was built."""

    model: ModelVersion
    class_names: list[str] = Field(description="in the order of the classes' indices")
    classes_without_template: list[int] = Field(description="images of these predicted classes get no verdict")
    input: dict[str, Any] = Field(description="how images are made into the classifier's pixels")
    classifier: dict[str, Any] = Field(description="the classifier's architecture and normalisation")
    compute_dtype: str = Field(description="what the classifier computes in here")
    calibrated_dtype: str = Field(description="what it computed in when the detector was calibrated")
    detector: dict[str, Any] = Field(description="the choices that the detector was fitted with")
    measured: dict[str, Any] = Field(description="how the bundle was measured when it was built, and what came out")
    limits: Limits


class Health(BaseModel):
    """The answer of a probe."""

    status: str = Field(examples=["ok"])


class ProblemDetails(BaseModel):
    """An error, as RFC 9457 has it. Kinds of problems may have further members."""

    type: str = Field(
        description="stable name of the kind of problem", examples=["urn:modeguard:problem:invalid-image"]
    )
    title: str = Field(description="the kind of problem in words", examples=["Invalid image"])
    status: int = Field(description="the HTTP status again", examples=[422])
    detail: str = Field(description="what was expected, what came, and the way out")
    request_id: str | None = Field(None, description="by which the operator finds the request in the logs")
    index: int | None = Field(None, description="invalid-image: place of the image in the request")
    filename: str | None = Field(None, description="invalid-image: the name of the file")
    reason: str | None = Field(
        None,
        description="invalid-image: empty, unknown_format, too_many_pixels, animated, transparent, unsupported_mode, "
        "damaged, wrong_size or too_elongated",
        examples=["damaged"],
    )
    errors: list[dict[str, str]] | None = Field(None, description="invalid-request: location and message of each fault")
