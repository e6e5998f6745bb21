"""How good a detector is: ranking, operating points and intervals, for each attack and over all.

Words and choices of the benchmark protocols: AUROC and AUPR rank adversarial above natural images, TPR at a small FPR
is what an operator feels, balanced accuracy is at the scorer's own decision.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeguard.detector import ModeguardError

Scores = NDArray[np.float64]


class EvaluationError(ModeguardError, ValueError):
    """Too few images to measure anything."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with chance in it: the value measured and the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedScores:
    """Scores of one attack's test pairs, abstentions left out.

    Attributes:
        natural: (n_natural,) scores of the natural twins.
        adversarial: (n_adversarial,) scores of the adversarial images.
        decision: the score above which the scorer by itself says adversarial.
    """

    natural: Scores
    adversarial: Scores
    decision: float

    def __post_init__(self) -> None:
        if len(self.natural) == 0 or len(self.adversarial) == 0:
            raise EvaluationError(
                f"an evaluation needs natural and adversarial test images with a verdict, got {len(self.natural)} and "
                f"{len(self.adversarial)}; attack more images or give more classes templates"
            )

    def labelled(self) -> tuple[Scores, Scores]:
        """Scores and labels (1 for adversarial) side by side."""
        scores = np.concatenate([self.natural, self.adversarial])
        return scores, np.repeat([0.0, 1.0], [len(self.natural), len(self.adversarial)])


def balanced_accuracy(pairs: PairedScores) -> float:
    """Mean of TPR and TNR at the scorer's own decision."""
    return float(((pairs.adversarial > pairs.decision).mean() + (pairs.natural <= pairs.decision).mean()) / 2)


def auroc(pairs: PairedScores) -> float:
    """Probability that an adversarial image scores above a natural one, ties counting half."""
    scores, labels = pairs.labelled()
    return float(_scikit_learn().roc_auc_score(labels, scores))


def aupr(pairs: PairedScores) -> float:
    """Average precision with adversarial images as the positive class."""
    scores, labels = pairs.labelled()
    return float(_scikit_learn().average_precision_score(labels, scores))


def tpr_at_fpr(pairs: PairedScores, max_fpr: float) -> float:
    """Largest TPR of any threshold that flags at most `max_fpr` of the natural images."""
    fpr, tpr, _ = _roc(pairs)
    return float(tpr[fpr <= max_fpr + 1e-12].max())


def fpr_at_tpr(pairs: PairedScores, min_tpr: float) -> float:
    """Smallest FPR of any threshold that flags at least `min_tpr` of the adversarial images."""
    fpr, tpr, _ = _roc(pairs)
    return float(fpr[tpr >= min_tpr - 1e-12].min())


def _roc(pairs: PairedScores) -> tuple[Scores, Scores, Scores]:
    scores, labels = pairs.labelled()
    fpr, tpr, thresholds = _scikit_learn().roc_curve(labels, scores, drop_intermediate=False)
    return fpr, tpr, thresholds


def _scikit_learn() -> Any:
    return importlib.import_module("sklearn.metrics")  # loads much; a recipe is read without it


METRICS: dict[str, Callable[[PairedScores], float]] = {
    "balanced_accuracy": balanced_accuracy,
    "auroc": auroc,
    "aupr": aupr,
    "tpr_at_1_fpr": lambda pairs: tpr_at_fpr(pairs, 0.01),
    "tpr_at_5_fpr": lambda pairs: tpr_at_fpr(pairs, 0.05),
    "fpr_at_95_tpr": lambda pairs: fpr_at_tpr(pairs, 0.95),
}


def measure(
    pairs: PairedScores, *, n_bootstrap: int, confidence: float, generator: np.random.Generator
) -> dict[str, Interval]:
    """Every metric with a percentile bootstrap interval over the images of each kind.

    Args:
        pairs: scores of both kinds.
        n_bootstrap: resamples, at least 1.
        confidence: of the interval, within (0, 1).
        generator: of the resamples.

    Returns:
        An interval for each name in `METRICS`.
    """
    resamples = [_resample(pairs, generator) for _ in range(n_bootstrap)]
    tails = 100 * (1 - confidence) / 2
    result: dict[str, Interval] = {}
    for name, metric in METRICS.items():
        low, high = np.percentile([metric(sample) for sample in resamples], [tails, 100 - tails])
        result[name] = Interval(metric(pairs), float(low), float(high))
    return result


def _resample(pairs: PairedScores, generator: np.random.Generator) -> PairedScores:
    def draw(scores: Scores) -> Scores:
        drawn: Scores = scores[generator.integers(len(scores), size=len(scores))]
        return drawn

    return PairedScores(draw(pairs.natural), draw(pairs.adversarial), pairs.decision)
