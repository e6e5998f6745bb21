"""What a report shows, taken from a build: examples of each attack, scores, curves, and where the threshold is."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeguard.detector import Detector, detect, loss_curves
from modeguard.offline.evaluation.metrics import PairedScores
from modeguard.offline.evaluation.results import paired_scores
from modeguard.offline.pipeline import observations
from modeguard.offline.pipeline.build import SOURCES, Build
from modeguard.offline.report.pictures import Spread
from modeguard.offline.tuning.grid import alphas_of
from modeguard.offline.tuning.trials import LabelledObservation

__all__ = ["Case", "Judged", "cases_of", "pooled_pairs", "scores_of", "spread_of", "threshold_of"]

Array = NDArray[np.float64]

_N_DRAWN_POINTS = 33


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One image and what the detector says of it.

    Attributes:
        pixels: (c, h, w) in [0, 1].
        predicted: class index.
        score, p_value: NaN where abstained.
        is_adversarial: the verdict; None where abstained.
        template: (c, h, w), the best one of the predicted class; None where it has none.
        alphas: (n_points,) of the path, more than the detector looks at.
        losses: (n_templates, n_points) along the paths; NaN where abstained.
        is_seen: (n_points,) bool, the points that the detector looks at.
    """

    pixels: Tensor
    predicted: int
    score: float
    p_value: float
    is_adversarial: bool | None
    template: Tensor | None
    alphas: Array
    losses: Array
    is_seen: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A test image and its adversarial twin.

    Attributes:
        attack: name in the recipe.
        norm: of the attack.
        distance: size of the perturbation in that norm.
        label: the true class.
        natural, adversarial: the two images.
    """

    attack: str
    norm: str
    distance: float
    label: int
    natural: Judged
    adversarial: Judged


def cases_of(build: Build) -> list[Case]:
    """An example of each attack from the test fold.

    The k-th attack shows its k-th success: different images, and no picking by how well the detector does.
    """
    roles = build.roles.value
    chosen: list[tuple[str, int]] = []
    for number, name in enumerate(build.recipe.attacks):
        rows = build.successes(name, build.folds.is_test).nonzero()[:, 0]
        chosen.append((name, int(rows[number % len(rows)])))
    source_rows = [int(build.attacked(name).value.source_rows[row]) for name, row in chosen]
    natural = _judge(build, build.pixels_of(SOURCES)[source_rows])
    adversarial = _judge(build, torch.stack([build.attacked(name).value.images[row] for name, row in chosen]))
    labels = build.dataset.test.labels[roles.sources[source_rows]]
    return [
        Case(
            attack=name,
            norm=build.recipe.attacks[name].attack.norm,
            distance=float(build.attacked(name).value.distances[row]),
            label=int(labels[number]),
            natural=natural[number],
            adversarial=adversarial[number],
        )
        for number, (name, row) in enumerate(chosen)
    ]


def scores_of(build: Build) -> dict[str, PairedScores]:
    """Scores of the test pairs by attack."""
    detector, is_test = build.fitted.detector, build.folds.is_test
    return {name: paired_scores(detector, build.pairs(name, is_test)) for name in build.recipe.attacks}


def pooled_pairs(build: Build) -> LabelledObservation:
    """Every natural source of the test fold once, and every successful attack on them."""
    natural = observations.pick(build.observed(SOURCES), build.folds.is_test)
    adversarial = []
    for name in build.recipe.attacks:
        pairs = build.pairs(name, build.folds.is_test)
        adversarial.append(observations.pick(pairs.observation, pairs.is_adversarial))
    joined = observations.join([natural, *adversarial])
    n_natural = len(natural.curves.predicted)
    return LabelledObservation(joined, torch.arange(len(joined.curves.predicted)) >= n_natural)


def spread_of(detector: Detector, pairs: LabelledObservation, quantity: str) -> Spread:
    """Curves of both kinds, the mean over the templates; images without verdict are left out.

    Args:
        detector: its points and templates are used.
        pairs: images of both kinds.
        quantity: "losses" or "margins".
    """
    curves = pairs.observation.curves.select(detector.config.alphas, detector.config.n_templates)
    means = getattr(curves, quantity).mean(dim=1)
    return Spread(
        alphas=curves.alphas.double().numpy(),
        natural=means[curves.is_covered & ~pairs.is_adversarial].double().numpy(),
        adversarial=means[curves.is_covered & pairs.is_adversarial].double().numpy(),
    )


def threshold_of(detector: Detector) -> float:
    """The score above which an image is flagged: where the p-value reaches the target FPR.

    With m calibration scores that is the ceil((m + 1)(1 - target_fpr))-th in ascending order (Angelopoulos and Bates,
    arXiv:2107.07511, section 1).
    """
    m = len(detector.calibration_scores)
    rank = math.ceil((m + 1) * (1 - detector.config.target_fpr) - 1e-9)
    return float(detector.calibration_scores[min(rank, m) - 1])


def _judge(build: Build, images: Tensor) -> list[Judged]:
    detector, classifier = build.fitted.detector.to(build.device), build.classifier
    config = detector.config
    alphas = sorted({*alphas_of(_N_DRAWN_POINTS), *config.alphas})
    pixels = images.to(build.device)
    with torch.inference_mode():
        found = detect(detector, classifier, pixels)
        curves = loss_curves(classifier, pixels, detector.templates, alphas)
    losses: Array = curves.losses.double().cpu().numpy()
    template_rows = detector.templates.rows_of(found.predicted).tolist()
    is_seen = np.array([alpha in set(config.alphas) for alpha in alphas])
    return [
        Judged(
            pixels=images[row],
            predicted=int(found.predicted[row]),
            score=float(found.score[row]),
            p_value=float(found.p_value[row]),
            is_adversarial=None if found.is_abstained[row] else bool(found.is_adversarial[row]),
            template=None if template_rows[row] < 0 else detector.templates.images[template_rows[row], 0].cpu(),
            alphas=np.array(alphas),
            losses=losses[row],
            is_seen=is_seen,
        )
        for row in range(len(images))
    ]
