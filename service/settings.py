"""What an operator can choose, each from an environment variable MODEGUARD_<NAME>."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from modeguard.detector import ModeguardError
from modeguard.templates_store.images import DEFAULT_MAX_PIXELS, LARGEST_MAX_PIXELS

ENV_PREFIX = "MODEGUARD_"
MEBIBYTE = 2**20


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class SettingsError(ModeguardError, ValueError):
    """Settings that are missing or out of range."""


def _split_at_commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class Settings(BaseSettings):
    """The choices of one server; an empty environment variable counts as not set."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True)

    bundle: Path = Field(description="directory of the bundle to serve")
    bundle_digest: Sha256 | None = Field(None, description="digest of the only bundle to serve; any will do if unset")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every IPv4 network")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 for any free one")

    device: str = Field(
        "auto", description='where to compute: "auto" is the GPU where there is one, or "cpu", "cuda:1"'
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="what the classifier computes in")
    rows_per_call: int = Field(256, ge=1, description="bound on the rows of one call of the classifier")
    torch_threads: int | None = Field(None, ge=1, description="CPU threads of one computation; torch's choice if unset")
    allowed_factories: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_at_commas)] = Field(
        (), description='"package.module:factory" names, with commas, that a bundle may call to build its classifier'
    )
    trusted_programs: Annotated[tuple[Sha256, ...], NoDecode, BeforeValidator(_split_at_commas)] = Field(
        (), description="sha256 of the torch.export programs, with commas, that a bundle may bring as its classifier"
    )

    max_body_bytes: int = Field(32 * MEBIBYTE, ge=1, description="bound on the body of a request")
    max_images: int = Field(32, ge=1, description="bound on the images of a request")
    max_pixels: int = Field(
        DEFAULT_MAX_PIXELS, ge=1, le=LARGEST_MAX_PIXELS, description="bound on width times height of an image"
    )
    max_pending: int = Field(32, ge=1, description="requests that may be read, decoded or judged at a time")
    decode_threads: int = Field(2, ge=1, description="threads that decode images")
    body_timeout_s: float = Field(30.0, gt=0, allow_inf_nan=False, description="time a client has to send its body")
    shutdown_timeout_s: int = Field(30, ge=1, description="time that requests have to finish when the server stops")

    log_format: Literal["json", "console"] = Field("json", description="how log lines on stderr look")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")


def load_settings() -> Settings:
    """Settings from the environment.

    Raises:
        SettingsError: naming every variable at fault.
    """
    try:
        return Settings()  # type: ignore[call-arg]  # the fields come from the environment
    except ValidationError as error:
        raise SettingsError("; ".join(_complaint(fault) for fault in error.errors(include_url=False))) from None


def _complaint(fault: object) -> str:
    """One fault as a person reads it, e.g. "MODEGUARD_PORT: Input should be ... , got '70000'"."""
    if not isinstance(fault, dict):
        return str(fault)
    field = str(fault["loc"][0]) if fault["loc"] else ""
    variable = f"{ENV_PREFIX}{field.upper()}"
    if fault["type"] == "missing":
        return f"{variable} is not set; it is the {Settings.model_fields[field].description}"
    return f"{variable}: {fault['msg']}, got {fault['input']!r}"
