"""The report of a build: one HTML file for somebody who has never seen the method.

The file asks for nothing outside itself. Names of classes and recipes are a user's data and are escaped.
"""

import inspect
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from modeguard.detector import Detector, ModeguardError, threshold
from modeguard.detector.questions import Curves
from modeguard.offline.attacks import Attack
from modeguard.offline.evaluation import (
    Evaluation,
    EvaluationConfig,
    HeldOut,
    Interval,
    PairedScores,
    flagged_shares,
    paired_scores,
)
from modeguard.offline.report.cases import Case, Judged, pooled_pairs, spread_of
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
from modeguard.offline.tuning import Fitted, Trial
from modeguard.templates_store.files import write_file_atomically

_N_TRIALS_SHOWN = 5
_SMALL_IMAGE = 96
_LIBRARIES = ("modeguard", "torch", "torchvision", "scikit-learn", "numpy", "pillow", "matplotlib")
_QUANTITIES = {"losses": "loss", "margins": "margin"}


class ReportError(ModeguardError):
    """A report that cannot be written; the message names the file and the reason."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report says of how a detector was made.

    Attributes:
        name: of the recipe.
        dataset: its name.
        n_train, n_test: images of it.
        class_names: in the order of the classes.
        architecture: of the classifier.
        input_shape: (c, h, w) of its images.
        tolerance: mean AUROC that was given up for a cheaper detector.
        attacks: by the name in the recipe.
        seeds: by what they were for.
        digest: of the bundle, if there is one.
    """

    name: str
    dataset: str
    n_train: int
    n_test: int
    class_names: tuple[str, ...]
    architecture: str
    input_shape: tuple[int, int, int]
    tolerance: float
    attacks: Mapping[str, Attack]
    seeds: Mapping[str, int]
    digest: str | None


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


@dataclass(frozen=True, slots=True)
class _TrialRow:
    """A trial as the page shows it."""

    trial: Trial
    n_points: int
    scorer: str


def write_report(
    path: Path,
    facts: Facts,
    config: EvaluationConfig,
    evaluation: Evaluation,
    fitted: Fitted,
    held_out: HeldOut,
    cases: Sequence[Case],
) -> None:
    """Write the report, whole or not at all; equal values give equal files.

    Args:
        path: the HTML file; missing directories are made, an existing file is replaced.
        facts: how the detector was made.
        config: how sure the figures are.
        evaluation: the figures.
        fitted: the detector, and what else was tried.
        held_out: what it was measured on.
        cases: examples.

    Raises:
        ReportError: if the disk refuses (full, read-only); an existing report is then left as it was.
    """
    content = _render(facts, config, evaluation, fitted, held_out, cases).encode()
    try:
        write_file_atomically(path, content)
    except OSError as error:
        raise ReportError(
            f"report {path} was not written: {error.strerror or error}; what was there before is untouched. Make "
            "room, or choose another artefact directory"
        ) from error


def _render(
    facts: Facts,
    config: EvaluationConfig,
    evaluation: Evaluation,
    fitted: Fitted,
    held_out: HeldOut,
    cases: Sequence[Case],
) -> str:
    detector = fitted.detector
    pooled_observation = pooled_pairs(held_out)
    pooled = paired_scores(detector, pooled_observation)
    natural_flagged, adversarial_flagged = flagged_shares(detector, pooled_observation)
    scores = {name: paired_scores(detector, attack.pairs) for name, attack in held_out.attacks.items()}
    return _template().render(
        facts=facts,
        intervals=config,
        evaluation=evaluation,
        worst=evaluation.worst,
        config=detector.config,
        n_classes_with_template=len(detector.templates.classes),
        n_natural=len(pooled.natural),
        n_adversarial=len(pooled.adversarial),
        natural_flagged=natural_flagged,
        adversarial_flagged=adversarial_flagged,
        attacks={name: _attack_words(name, attack) for name, attack in facts.attacks.items()},
        trials=[_trial_row(trial) for trial in _best_trials(fitted.trials, evaluation.chosen)],
        is_small=max(facts.input_shape[1:]) <= _SMALL_IMAGE,
        examples=[_example(case, facts.class_names) for case in cases],
        rocs=_roc_pictures(scores, detector.config.target_fpr),
        histograms=_score_pictures(detector, {"all attacks": pooled} | scores),
        spreads=_spread_pictures(detector, held_out),
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


def _attack_words(name: str, attack: Attack) -> tuple[str, str]:
    """What an attack does, from its documentation, and its parameters."""
    summary = (inspect.getdoc(type(attack)) or name).splitlines()[0].replace("`", "")
    values = {field.name: getattr(attack, field.name) for field in fields(attack)}  # type: ignore[arg-type]
    return summary, _listed(values)


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def _trial_row(trial: Trial) -> _TrialRow:
    curves, scorer = trial.config.questions.get("curves"), trial.config.scorer
    options = {field.name: getattr(scorer, field.name) for field in fields(scorer)}  # type: ignore[arg-type]
    n_points = len(curves.alphas) if isinstance(curves, Curves) else 0
    return _TrialRow(trial, n_points, f"{scorer.kind}: {_listed(options)}")


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


def _score_pictures(detector: Detector, sets: Mapping[str, PairedScores]) -> list[Markup]:
    limit = threshold(detector.calibration_scores, detector.config.target_fpr)
    return [
        scores_picture(pairs, limit, title, f"Histogram of the scores of natural and adversarial images: {title}")
        for title, pairs in sets.items()
    ]


def _spread_pictures(detector: Detector, held_out: HeldOut) -> list[Markup]:
    shown = ["losses"] + (["margins"] if "margin_curve" in detector.config.features else [])
    spreads = [
        (name, quantity, spread_of(detector, attack.pairs, quantity))
        for quantity in shown
        for name, attack in held_out.attacks.items()
    ]
    return [
        spread_picture(
            spread,
            name,
            _QUANTITIES[quantity],
            f"Mean {_QUANTITIES[quantity]} curves of natural and adversarial images: {name}",
        )
        for name, quantity, spread in spreads
        if spread is not None
    ]


def _example(case: Case, class_names: tuple[str, ...]) -> _Example:
    natural, adversarial, attack = case.natural, case.adversarial, case.example.attack
    difference, gain = difference_uri(natural.pixels, adversarial.pixels)
    size = f"{case.example.norm} distance {case.example.distance:.3g}"
    images = (
        _judged_image(natural, "natural", class_names),
        _judged_image(adversarial, f"adversarial ({attack})", class_names),
        _Image(difference, f"what {attack} changed, amplified {gain:.3g} times", f"difference × {gain:.3g}", (size,)),
        _template_image(natural, "natural", class_names),
        _template_image(adversarial, "adversarial", class_names),
    )
    curves = [
        Curve(title, colour, judged.alphas, judged.losses, judged.is_seen)
        for title, colour, judged in (("natural", NATURAL, natural), ("adversarial", ADVERSARIAL, adversarial))
    ]
    taken_for = class_names[adversarial.verdict.predicted]
    return _Example(
        title=f"{attack}: {class_names[case.example.label]} taken for {taken_for}",
        images=tuple(image for image in images if image is not None),
        curves=curves_picture(curves, f"Loss curves of the natural image and of its {attack} twin"),
    )


def _judged_image(judged: Judged, kind: str, class_names: tuple[str, ...]) -> _Image:
    verdict = judged.verdict
    name = class_names[verdict.predicted]
    figures = () if verdict.reason else (f"score {verdict.score:.3f}", f"p-value {verdict.p_value:.3f}")
    lines = (f"predicted {name}", *figures, f"verdict: {verdict.word}")
    return _Image(png_uri(judged.pixels), f"{kind} image, predicted {name}", kind, lines)


def _template_image(judged: Judged, kind: str, class_names: tuple[str, ...]) -> _Image | None:
    if judged.template is None:
        return None
    name = class_names[judged.verdict.predicted]
    return _Image(
        png_uri(judged.template), f"template of class {name}", f"template for the {kind} image", (f"class {name}",)
    )


def _version(library: str) -> str:
    with suppress(ModuleNotFoundError):
        return version(library)
    return "not installed"
