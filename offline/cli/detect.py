"""`modeguard detect`: image files judged with a bundle, as the server does it, without the server."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from modeguard.detector import detect, to_pixels
from modeguard.offline.cli.options import BundleOption, DeviceOption
from modeguard.offline.console import Console
from modeguard.templates_store.bundles.bundle import Bundle, read_bundle
from modeguard.templates_store.classifiers.loading import resolve_device
from modeguard.templates_store.images.decoding import DEFAULT_MAX_PIXELS, InvalidImage, decode_image

__all__ = ["FileVerdict", "detect_command", "detect_files"]

_COLUMNS = ["file", "predicted", "score", "p-value", "verdict"]


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """What is said of one file.

    Attributes:
        file: path as it was given.
        predicted: class name; None if the file is no image that can be judged.
        score: in [0, 1]; None where there is no verdict.
        p_value: in (0, 1]; None where there is no verdict.
        is_adversarial: None where there is no verdict.
        reason: why there is no verdict; None otherwise.
        alphas: points of the path, if asked for.
        losses: (n_templates, n_points) loss curves, if asked for.
    """

    file: str
    predicted: str | None
    score: float | None
    p_value: float | None
    is_adversarial: bool | None
    reason: str | None
    alphas: list[float] | None = None
    losses: list[list[float]] | None = None


def detect_command(
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP files.")],
    bundle: BundleOption,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    curves: Annotated[bool, typer.Option("--curves", help="With --json, give the loss curves too.")] = False,
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    device: DeviceOption = "auto",
    allow_factory: Annotated[
        list[str] | None,
        typer.Option(help="package.module:factory that the bundle may call to make its classifier."),
    ] = None,
    bundle_digest: Annotated[
        str | None,
        typer.Option(
            envvar="MODEGUARD_BUNDLE_DIGEST", help="Digest of the only bundle to judge with; any if not given."
        ),
    ] = None,
) -> None:
    """Judge image files. Exit status 1 if one of them cannot be read as an image."""
    console = Console()
    loaded = read_bundle(
        bundle,
        device=resolve_device(device),
        dtype=dtype,
        allowed_factories=tuple(allow_factory or ()),
        expected_digest=bundle_digest,
    )
    if loaded.warning is not None:
        console.warn(loaded.warning)
    verdicts = []
    with console.progress("judging", total=len(images)) as progress:
        for verdict in detect_files(loaded, images, with_curves=curves):
            verdicts.append(verdict)
            progress.advance()
    if as_json:
        for verdict in verdicts:
            console.say(json.dumps(dataclasses.asdict(verdict), allow_nan=False))
    else:
        console.table("", _COLUMNS, [_row(verdict) for verdict in verdicts])
    if any(verdict.predicted is None for verdict in verdicts):
        raise typer.Exit(1)


def detect_files(bundle: Bundle, files: Sequence[Path], *, with_curves: bool = False) -> Iterator[FileVerdict]:
    """Judge files one by one; one that cannot be judged gets a reason and does not stop the others.

    Args:
        bundle: classifier and detector.
        files: PNG, JPEG or WebP files.
        with_curves: give the loss curves too.
    """
    for file in files:
        try:
            image = decode_image(file.read_bytes(), bundle.manifest.input, max_pixels=DEFAULT_MAX_PIXELS)
        except OSError as error:
            yield _without_verdict(file, f"cannot be read: {error.strerror}")
        except InvalidImage as error:
            yield _without_verdict(file, str(error))
        else:
            yield _verdict(bundle, file, image, with_curves)


@torch.inference_mode()
def _verdict(bundle: Bundle, file: Path, image: torch.Tensor, with_curves: bool) -> FileVerdict:
    templates = bundle.detector.templates
    pixels = to_pixels(image)[None].to(templates.images.device)
    found = detect(bundle.detector, bundle.classifier, pixels)
    is_abstained = bool(found.is_abstained[0])
    return FileVerdict(
        file=str(file),
        predicted=bundle.manifest.class_names[int(found.predicted[0])],
        score=None if is_abstained else float(found.score[0]),
        p_value=None if is_abstained else float(found.p_value[0]),
        is_adversarial=None if is_abstained else bool(found.is_adversarial[0]),
        reason=found.reasons[0],
        alphas=found.curves.alphas.tolist() if with_curves and not is_abstained else None,
        losses=found.curves.losses[0].tolist() if with_curves and not is_abstained else None,
    )


def _without_verdict(file: Path, reason: str) -> FileVerdict:
    return FileVerdict(str(file), None, None, None, None, reason)


def _row(verdict: FileVerdict) -> list[object]:
    words = {True: "adversarial", False: "natural", None: f"no verdict: {verdict.reason}"}
    figures = [f"{value:.4f}" if value is not None else "-" for value in (verdict.score, verdict.p_value)]
    return [verdict.file, verdict.predicted or "-", *figures, words[verdict.is_adversarial]]
