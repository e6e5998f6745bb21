"""Nearest neighbours: the fraction of a feature vector's neighbours that are adversarial.

The same numbers as scikit-learn's KNeighborsClassifier, by torch matrix products and top-k on any device. Where
references at the k-th distance tie, those that come first in the reference set are the neighbours: scikit-learn's
answer when its training rows are ordered by distance.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError

Weights = Literal["uniform", "distance"]
Metric = Literal["euclidean", "manhattan"]
Scaling = Literal["none", "standard", "robust"]

# Distances from matrix products lose digits to cancellation: this many more candidates are ranked again exactly.
_SPARE_CANDIDATES = 16
_ENTRIES_PER_SLICE = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Reference features and how to compare with them.

    Attributes:
        features: (n_reference, n_features) float64, scaled.
        is_adversarial: (n_reference,) bool.
        center: (n_features,) float64, subtracted from a feature before it is compared.
        scale: (n_features,) float64, divided by after that; positive.
        n_neighbors: k, in 1..n_reference.
        weights: how much a neighbour counts: all the same, or by the inverse of its distance.
        metric: distance between scaled features.
    """

    features: Tensor
    is_adversarial: Tensor
    center: Tensor
    scale: Tensor
    n_neighbors: int
    weights: Weights
    metric: Metric

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or len(self.features) != len(self.is_adversarial):
            raise DetectorInputError(
                f"reference features are (n_reference, n_features) with one label a row, got "
                f"{tuple(self.features.shape)} and {tuple(self.is_adversarial.shape)}"
            )
        if not 1 <= self.n_neighbors <= len(self.features):
            raise DetectorInputError(
                f"n_neighbors is within 1..{len(self.features)} (the reference images), got {self.n_neighbors}"
            )
        if self.weights not in get_args(Weights) or self.metric not in get_args(Metric):
            raise DetectorInputError(
                f"weights are one of {get_args(Weights)} and the metric one of {get_args(Metric)}, "
                f"got {self.weights!r} and {self.metric!r}"
            )
        if not self.center.shape == self.scale.shape == self.features.shape[1:] or not bool((self.scale > 0).all()):
            raise DetectorInputError(
                f"center and scale have one number for each of {self.features.shape[1]} features, the scale a positive "
                f"one, got {tuple(self.center.shape)} and {tuple(self.scale.shape)}"
            )
        if not bool(torch.isfinite(self.features).all()):
            raise DetectorInputError("reference features are finite; drop images whose class has no template")

    def score(self, features: Tensor) -> Tensor:
        """Weighted fraction of adversarial images among the nearest references.

        Differentiable with respect to the features when `weights` is "distance".

        Args:
            features: (n, n_features), unscaled, finite.

        Returns:
            (n,) float64 in [0, 1], higher is more adversarial.

        Raises:
            DetectorInputError: if the number of features is another.
        """
        if features.ndim != 2 or features.shape[1] != self.features.shape[1]:
            raise DetectorInputError(
                f"features of shape (n, {self.features.shape[1]}) were expected, got {tuple(features.shape)}"
            )
        queries = (features.to(self.features.dtype) - self.center) / self.scale
        rows = max(1, _ENTRIES_PER_SLICE // max(len(self.features), self.n_neighbors * features.shape[1]))
        if len(queries) == 0:
            return queries.new_zeros(0)
        return torch.cat([self._score_slice(part) for part in queries.split(rows)])

    def _score_slice(self, queries: Tensor) -> Tensor:
        distances, neighbours = self._nearest(queries)
        votes = self.is_adversarial[neighbours].to(distances.dtype)
        if self.weights == "uniform":
            return votes.mean(dim=1)
        is_same = distances == 0
        inverse = torch.where(is_same, 0.0, 1 / torch.where(is_same, 1.0, distances))
        weights = torch.where(is_same.any(dim=1, keepdim=True), is_same.to(distances.dtype), inverse)
        return (weights * votes).sum(dim=1) / weights.sum(dim=1)

    def _nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Distances and indices (n, k) of the neighbours, nearest first, ties in reference order."""
        n_candidates = min(len(self.features), self.n_neighbors + _SPARE_CANDIDATES)
        coarse = _coarse_distances(queries.detach(), self.features, self.metric)
        candidates = _with_ties_in_order(coarse, n_candidates)
        differences = queries[:, None, :] - self.features[candidates]
        order = 2 if self.metric == "euclidean" else 1
        exact = torch.linalg.vector_norm(differences, ord=order, dim=2)
        ranking = exact.detach().sort(dim=1, stable=True).indices[:, : self.n_neighbors]
        return exact.gather(1, ranking), candidates.gather(1, ranking)

    def to(self, device: torch.device | str) -> "Neighbours":
        """The same references on another device."""
        return replace(
            self,
            features=self.features.to(device),
            is_adversarial=self.is_adversarial.to(device),
            center=self.center.to(device),
            scale=self.scale.to(device),
        )


def _coarse_distances(queries: Tensor, references: Tensor, metric: Metric) -> Tensor:
    """(n, n_reference); squared and by a matrix product when Euclidean, since only the order matters."""
    if metric == "manhattan":
        return torch.cdist(queries, references, p=1)
    squares = references.square().sum(dim=1) - 2 * queries @ references.T
    return squares + queries.square().sum(dim=1, keepdim=True)


def _with_ties_in_order(distances: Tensor, n_candidates: int) -> Tensor:
    """Indices (n, n_candidates) of the nearest references, ascending by index.

    Distances within a rounding error of the cut count as tied with it; among those the lower index goes in, which
    top-k alone does not promise.
    """
    if n_candidates == distances.shape[1]:
        return torch.arange(n_candidates, device=distances.device).expand(len(distances), -1)
    cut = distances.kthvalue(n_candidates, dim=1, keepdim=True).values
    slack = 1e-9 * (1 + cut.abs())
    is_inside = distances < cut - slack
    is_tied = (distances <= cut + slack) & ~is_inside
    places_left = n_candidates - is_inside.sum(dim=1, keepdim=True)
    is_chosen = is_inside | (is_tied & (is_tied.cumsum(dim=1) <= places_left))
    return is_chosen.nonzero()[:, 1].reshape(len(distances), n_candidates)


def fit_neighbours(
    features: Tensor,
    is_adversarial: Tensor,
    *,
    n_neighbors: int,
    weights: Weights = "distance",
    metric: Metric = "euclidean",
    scaling: Scaling = "standard",
) -> Neighbours:
    """Keep reference features, scaled.

    Args:
        features: (n_reference, n_features), finite.
        is_adversarial: (n_reference,) bool, both kinds present.
        n_neighbors: k.
        weights: see `Neighbours`.
        metric: see `Neighbours`.
        scaling: "standard" subtracts the mean and divides by the standard deviation, "robust" the median and the
            interquartile range, "none" leaves features as they are.

    Raises:
        DetectorInputError: if a kind of image is missing, or an option is unknown.
    """
    is_adversarial = is_adversarial.to(torch.bool)
    if bool(is_adversarial.all()) or not bool(is_adversarial.any()):
        raise DetectorInputError("the fit set needs natural and adversarial images, got one kind only")
    references = features.detach().to(torch.float64)
    center, scale = _scaling_of(references, scaling)
    return Neighbours(
        features=(references - center) / scale,
        is_adversarial=is_adversarial,
        center=center,
        scale=scale,
        n_neighbors=n_neighbors,
        weights=weights,
        metric=metric,
    )


def _scaling_of(features: Tensor, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """Center and scale (n_features,); a constant feature has scale 1."""
    if scaling == "none":
        center, scale = torch.zeros_like(features[0]), torch.ones_like(features[0])
    elif scaling == "standard":
        center, scale = features.mean(dim=0), features.std(dim=0, correction=0)
    elif scaling == "robust":
        quartiles = torch.quantile(features, features.new_tensor([0.25, 0.5, 0.75]), dim=0)
        center, scale = quartiles[1], quartiles[2] - quartiles[0]
    else:
        raise DetectorInputError(f"scaling is one of {get_args(Scaling)}, got {scaling!r}")
    return center, torch.where(scale > 0, scale, 1.0)
