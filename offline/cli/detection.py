"""Judging image files from the shell with a bundle: what the server does, without the server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from modeguard.detector import detect, to_pixels
from modeguard.templates_store.bundles.bundle import Bundle
from modeguard.templates_store.images import DEFAULT_MAX_PIXELS, InvalidImage, decode_image


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
