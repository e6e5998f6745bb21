"""`modeguard detect`: image files judged with a bundle, as the server does it, without the server."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from modeguard.detector import Sliced, Verdict, detect, to_pixels
from modeguard.offline.cli.options import BundleOption, DeviceOption, TrustOption
from modeguard.offline.console import Console
from modeguard.templates_store.bundles import Bundle, read_bundle
from modeguard.templates_store.classifiers import resolve_device
from modeguard.templates_store.images import DEFAULT_MAX_PIXELS, InvalidImage, decode_image

__all__ = ["JudgedFile", "detect_command", "judge_file"]

_COLUMNS = ["file", "predicted", "score", "p-value", "verdict"]
_NOTHING = dict.fromkeys(["predicted", "score", "p_value", "is_adversarial", "reason", "alphas", "losses"])


@dataclass(frozen=True, slots=True)
class JudgedFile:
    """What is said of one file.

    Attributes:
        file: path as it was given.
        outcome: the verdict, or why the file could not be read as an image.
    """

    file: str
    outcome: Verdict | str


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
    trust_program: TrustOption = None,
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
        trusted_programs=tuple(trust_program or ()),
        expected_digest=bundle_digest,
    )
    if loaded.warning is not None:
        console.warn(loaded.warning)
    judged = []
    with console.progress("judging", total=len(images)) as progress:
        for file in images:
            judged.append(judge_file(loaded, file, with_curves=curves))
            progress.advance()
    class_names = loaded.manifest.class_names
    if as_json:
        for each in judged:
            console.say(json.dumps(_members(each, class_names), allow_nan=False))
    else:
        console.table("", _COLUMNS, [_row(each, class_names) for each in judged])
    if any(isinstance(each.outcome, str) for each in judged):
        raise typer.Exit(1)


@torch.inference_mode()
def judge_file(bundle: Bundle, file: Path, *, with_curves: bool = False) -> JudgedFile:
    """Judge a file; one that cannot be read gets a reason in place of a verdict.

    Args:
        bundle: classifier and detector.
        file: a PNG, JPEG or WebP file.
        with_curves: give the loss curves too.
    """
    try:
        image = decode_image(file.read_bytes(), bundle.manifest.input, max_pixels=DEFAULT_MAX_PIXELS)
    except OSError as error:
        return JudgedFile(str(file), f"cannot be read: {error.strerror}")
    except InvalidImage as error:
        return JudgedFile(str(file), str(error))
    pixels = to_pixels(image)[None].to(bundle.detector.templates.images.device)
    (verdict,) = detect(bundle.detector, Sliced(bundle.classifier), pixels).verdicts(with_curves=with_curves)
    return JudgedFile(str(file), verdict)


def _members(judged: JudgedFile, class_names: Sequence[str]) -> dict[str, object]:
    """The JSON object of a file; every member is there, null where there is nothing to say."""
    if isinstance(judged.outcome, str):
        return {"file": judged.file, **_NOTHING, "reason": judged.outcome}
    verdict = judged.outcome
    curves = verdict.curves if verdict.reason is None else None  # they explain a verdict
    return {
        "file": judged.file,
        "predicted": class_names[verdict.predicted],
        "score": verdict.score,
        "p_value": verdict.p_value,
        "is_adversarial": verdict.is_flagged,
        "reason": verdict.reason,
        "alphas": curves.alphas if curves else None,
        "losses": curves.losses if curves else None,
    }


def _row(judged: JudgedFile, class_names: Sequence[str]) -> list[object]:
    if isinstance(judged.outcome, str):
        return [judged.file, "-", "-", "-", f"no verdict: {judged.outcome}"]
    verdict = judged.outcome
    figures = [f"{value:.4f}" if value is not None else "-" for value in (verdict.score, verdict.p_value)]
    words = verdict.word if verdict.reason is None else f"{verdict.word}: {verdict.reason}"
    return [judged.file, class_names[verdict.predicted], *figures, words]
