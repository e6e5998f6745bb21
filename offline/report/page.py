"""The report of a build: one HTML file for somebody who has never seen the method.

The file asks for nothing outside itself. Names of classes and recipes are a user's data and are escaped.
"""

import inspect
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from modeguard.detector import ModeguardError
from modeguard.offline.evaluation.metrics import Interval, PairedScores
from modeguard.offline.evaluation.results import Evaluation, flagged_share, paired_scores
from modeguard.offline.pipeline.build import Build
from modeguard.offline.recipe import AttackPlan
from modeguard.offline.report.cases import (
    Case,
    Judged,
    cases_of,
    pooled_pairs,
    scores_of,
    spread_of,
    threshold_of,
)
from modeguard.offline.report.pictures import (
    ADVERSARIAL,
    NATURAL,
    Curve,
    curves_picture,
    difference_uri,
    png_uri,
    roc_picture,
    scores_picture,
    spread_picture,
)
from modeguard.offline.tuning.trials import Trial
from modeguard.templates_store.files.atomic import write_file_atomically

__all__ = ["ReportError", "write_report"]

_N_TRIALS_SHOWN = 5
_SMALL_IMAGE = 96
_LIBRARIES = ("modeguard", "torch", "torchvision", "scikit-learn", "numpy", "pillow", "matplotlib")
_QUANTITIES = {"losses": "loss", "margins": "margin"}


class ReportError(ModeguardError):
    """A report that cannot be written; the message names the file and the reason."""


@dataclass(frozen=True, slots=True)
class _Image:
    """One picture of a case."""

    uri: str
    alt: str
    caption: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Example:
    """A case as the page shows it."""

    title: str
    images: tuple[_Image, ...]
    curves: Markup


def write_report(build: Build, evaluation: Evaluation, path: Path, *, digest: str | None = None) -> None:
    """Write the report, whole or not at all; equal builds give equal files.

    Args:
        build: what was built.
        evaluation: how it was measured.
        path: the HTML file; missing directories are made, an existing file is replaced.
        digest: of the bundle that was made of the build, if there is one.

    Raises:
        ReportError: if the disk refuses (full, read-only); an existing report is then left as it was.
    """
    with build.console.step("writing the report"):
        content = _render(build, evaluation, digest).encode()
        try:
            write_file_atomically(path, content)
        except OSError as error:
            raise ReportError(
                f"report {path} was not written: {error.strerror or error}; what was there before is untouched. Make "
                "room, or choose another artefact directory"
            ) from error


def _render(build: Build, evaluation: Evaluation, digest: str | None) -> str:
    detector = build.fitted.detector
    pooled = paired_scores(detector, pooled_pairs(build))
    return _template().render(
        recipe=build.recipe,
        dataset=build.dataset,
        evaluation=evaluation,
        worst=evaluation.worst,
        config=detector.config,
        detector=detector,
        digest=digest,
        n_natural=len(pooled.natural),
        n_adversarial=len(pooled.adversarial),
        natural_flagged=flagged_share(detector, pooled.natural),
        adversarial_flagged=flagged_share(detector, pooled.adversarial),
        attacks={name: _attack_words(plan) for name, plan in build.recipe.attacks.items()},
        trials=_best_trials(build.fitted.trials, evaluation.chosen),
        is_small=max(build.recipe.classifier.spec.input_shape[1:]) <= _SMALL_IMAGE,
        examples=[_example(case, build.dataset.class_names) for case in cases_of(build)],
        rocs=_roc_pictures(scores_of(build), detector.config.target_fpr),
        histograms=_score_pictures(build, pooled),
        spreads=_spread_pictures(build),
        seeds={
            "recipe": build.recipe.seed,
            "folds": build.recipe.split.seed,
            "data split": build.recipe.data.seed,
            "training": build.recipe.training.seed,
            "noise": detector.config.noise_seed,
        },
        libraries={"python": platform.python_version()} | {name: _version(name) for name in _LIBRARIES},
    )


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": _percent, "interval": _interval, "significant": _significant}
    text = resources.files("modeguard.offline.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(text)


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f}"


def _interval(interval: Interval) -> str:
    return f"{_percent(interval.low)}–{_percent(interval.high)}"


def _significant(value: float) -> str:
    return f"{value:.3g}"


def _attack_words(plan: AttackPlan) -> tuple[str, str]:
    """What an attack does, from its documentation, and its parameters."""
    attack = plan.attack
    summary = (inspect.getdoc(type(attack)) or plan.kind).splitlines()[0].replace("`", "")
    values = {field.name: getattr(attack, field.name) for field in fields(attack)}  # type: ignore[arg-type]
    return summary, ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def _best_trials(trials: tuple[Trial, ...], chosen: Trial) -> list[Trial]:
    """The trials that did best, and the chosen one, which may not be among them because it costs less."""
    best = sorted(trials, key=lambda trial: -trial.mean_auroc)[:_N_TRIALS_SHOWN]
    return best if chosen in best else [*best, chosen]


def _roc_pictures(scores: Mapping[str, PairedScores], target_fpr: float) -> list[Markup]:
    zoom = min(1.0, max(0.2, 2 * target_fpr))
    names = ", ".join(scores)
    return [
        roc_picture(scores, target_fpr=target_fpr, max_fpr=1.0, alt=f"ROC curves of {names}"),
        roc_picture(
            scores, target_fpr=target_fpr, max_fpr=zoom, alt=f"ROC curves of {names}, up to {100 * zoom:g} % FPR"
        ),
    ]


def _score_pictures(build: Build, pooled: PairedScores) -> list[Markup]:
    threshold = threshold_of(build.fitted.detector)
    sets = {"all attacks": pooled} | scores_of(build)
    return [
        scores_picture(pairs, threshold, title, f"Histogram of the scores of natural and adversarial images: {title}")
        for title, pairs in sets.items()
    ]


def _spread_pictures(build: Build) -> list[Markup]:
    detector = build.fitted.detector
    shown = ["losses"] + (["margins"] if "margin_curve" in detector.config.features else [])
    return [
        spread_picture(
            spread_of(detector, build.pairs(name, build.folds.is_test), quantity),
            name,
            _QUANTITIES[quantity],
            f"Mean {_QUANTITIES[quantity]} curves of natural and adversarial images: {name}",
        )
        for quantity in shown
        for name in build.recipe.attacks
    ]


def _example(case: Case, class_names: tuple[str, ...]) -> _Example:
    natural, adversarial = case.natural, case.adversarial
    difference, gain = difference_uri(natural.pixels, adversarial.pixels)
    size = f"{case.norm} distance {case.distance:.3g}"
    images = (
        _judged_image(natural, "natural", class_names),
        _judged_image(adversarial, f"adversarial ({case.attack})", class_names),
        _Image(
            difference, f"what {case.attack} changed, amplified {gain:.3g} times", f"difference × {gain:.3g}", (size,)
        ),
        _template_image(natural, "natural", class_names),
        _template_image(adversarial, "adversarial", class_names),
    )
    curves = [
        Curve(title, colour, judged.alphas, judged.losses, judged.is_seen)
        for title, colour, judged in (("natural", NATURAL, natural), ("adversarial", ADVERSARIAL, adversarial))
    ]
    return _Example(
        title=f"{case.attack}: {class_names[case.label]} taken for {class_names[adversarial.predicted]}",
        images=tuple(image for image in images if image is not None),
        curves=curves_picture(curves, f"Loss curves of the natural image and of its {case.attack} twin"),
    )


def _judged_image(judged: Judged, kind: str, class_names: tuple[str, ...]) -> _Image:
    name = class_names[judged.predicted]
    verdicts = {True: "flagged as adversarial", False: "passed as natural", None: "no verdict"}
    figures = (
        (f"score {judged.score:.3f}", f"p-value {judged.p_value:.3f}") if judged.is_adversarial is not None else ()
    )
    return _Image(
        png_uri(judged.pixels),
        f"{kind} image, predicted {name}",
        kind,
        (f"predicted {name}", *figures, verdicts[judged.is_adversarial]),
    )


def _template_image(judged: Judged, kind: str, class_names: tuple[str, ...]) -> _Image | None:
    if judged.template is None:
        return None
    name = class_names[judged.predicted]
    return _Image(
        png_uri(judged.template), f"template of class {name}", f"template for the {kind} image", (f"class {name}",)
    )


def _version(library: str) -> str:
    with suppress(ModuleNotFoundError):
        return version(library)
    return "not installed"
