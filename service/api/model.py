"""GET /v1/model: what is being served."""

import json
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from modeguard.service.api.dependencies import EngineOfApp, SettingsOfApp
from modeguard.service.api.schemas import NOT_READY, ModelVersion, problem_responses
from modeguard.templates_store.classifiers import dtype_name
from modeguard.templates_store.images import ALLOWED_FORMATS

router = APIRouter(tags=["detection"])


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


@router.get("/v1/model", summary="What is being served", responses=problem_responses(NOT_READY))
async def describe_model(engine: EngineOfApp, settings: SettingsOfApp) -> ModelDescription:
    """Classes, input, configuration, measurements and limits of the bundle being served."""
    bundle = engine.current.bundle
    manifest = bundle.manifest
    written = json.loads(manifest.to_json())  # has a name for every choice, and null for what is no number
    covered = set(bundle.detector.templates.classes.tolist())
    return ModelDescription(
        model=ModelVersion.of(bundle),
        class_names=list(manifest.class_names),
        classes_without_template=[i for i in range(len(manifest.class_names)) if i not in covered],
        input=written["input"],
        classifier=written["classifier"],
        compute_dtype=dtype_name(bundle.classifier.compute_dtype),
        calibrated_dtype=manifest.compute_dtype,
        detector=written["detector"],
        measured=written["measured"],
        limits=Limits(
            max_body_bytes=settings.max_body_bytes,
            max_images=settings.max_images,
            max_pixels=settings.max_pixels,
            formats=sorted(ALLOWED_FORMATS),
        ),
    )
