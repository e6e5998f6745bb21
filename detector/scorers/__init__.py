"""Scorers: one file a way from features to a score.

Not here: which features, and what a score means (`calibration`). To add a scorer: write a file with a record of options
that has `fit`, and the record of tensors that it gives, and add one line to `SCORERS`.
"""

from dataclasses import dataclass

from modeguard.detector.scorers.neighbors import Metric, Neighbors, NeighborsOptions, Weights
from modeguard.detector.scorers.scaling import Scaling, ScalingName, fit_scaling
from modeguard.detector.scorers.scorer import References, Scorer, ScorerOptions


@dataclass(frozen=True, slots=True)
class ScorerKind:
    """One kind of scorer.

    Attributes:
        options: the record of its choices, whose fields have defaults.
        scorer: the record of tensors that fitting gives; its field `options` holds the choices.
    """

    options: type[ScorerOptions]
    scorer: type[Scorer]


SCORERS: dict[str, ScorerKind] = {
    NeighborsOptions.kind: ScorerKind(NeighborsOptions, Neighbors),
}
"""Name to kind."""

__all__ = [
    "SCORERS",
    "Metric",
    "Neighbors",
    "NeighborsOptions",
    "References",
    "Scaling",
    "ScalingName",
    "Scorer",
    "ScorerKind",
    "ScorerOptions",
    "Weights",
    "fit_scaling",
]
