"""The JSON that several APIs share, as the OpenAPI description shows it."""

from typing import Any

from pydantic import BaseModel, Field

from modeguard.templates_store.bundles import Bundle


class ModelVersion(BaseModel):
    """What judged the images."""

    name: str = Field(description="name of the bundle", examples=["digits"])
    version: str = Field(description="digest of the bundle: sha256, hexadecimal", examples=["5f0c1e" + 58 * "0"])

    @classmethod
    def of(cls, bundle: Bundle) -> "ModelVersion":
        """Name and version of a bundle."""
        return cls(name=bundle.manifest.name, version=bundle.digest)


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


def problem_responses(descriptions: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """The problems of an address, for its description.

    Args:
        descriptions: by status, when it is answered.
    """
    return {status: {"model": ProblemDetails, "description": text} for status, text in descriptions.items()}


NOT_READY = {503: "the bundle is still being loaded"}
