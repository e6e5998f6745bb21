"""Scorers: one file a way from features to a score.

Not here: which features, and what a score means (`calibration`). To add a scorer: write a file with a record of options
that has `fit`, and the record of tensors that it gives, and add one line to `SCORERS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from torch import Tensor

from modeguard.detector.scorers.neighbors import (
    Metric,
    Neighbors,
    NeighborsOptions,
    Weights,
    score_neighbors_each,
)
from modeguard.detector.scorers.scaling import Scaling, ScalingName, fit_scaling
from modeguard.detector.scorers.scorer import References, Scorer, ScorerOptions


def _one_by_one(options: Sequence[ScorerOptions], references: References, features: Tensor) -> list[Tensor]:
    return [each.fit(references).score(features) for each in options]


@dataclass(frozen=True, slots=True)
class ScorerKind:
    """One kind of scorer.

    Attributes:
        options: the record of its choices, whose fields have defaults.
        scorer: the record of tensors that fitting gives; its field `options` holds the choices.
        score_each: `score_each` for options of this kind, where several can share work.
    """

    options: type[ScorerOptions]
    scorer: type[Scorer]
    score_each: Callable[[Sequence[Any], References, Tensor], list[Tensor]] = _one_by_one


SCORERS: dict[str, ScorerKind] = {
    NeighborsOptions.kind: ScorerKind(NeighborsOptions, Neighbors, score_neighbors_each),
}
"""Name to kind."""


def score_each(options: Sequence[ScorerOptions], references: References, features: Tensor) -> list[Tensor]:
    """What each of several choices gives, as if its scorer was fitted and asked by itself.

    Args:
        options: of any kinds.
        references: what each is fitted on.
        features: (n, n_features), finite; n may be 0.

    Returns:
        (n,) scores for each of the options, in their order.

    Raises:
        DetectorInputError: if one of them cannot be fitted.
    """
    scores: list[Tensor] = []
    for kind, alike in groupby(options, key=lambda each: each.kind):
        scores += SCORERS[kind].score_each(list(alike), references, features)
    return scores


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
    "score_each",
]
