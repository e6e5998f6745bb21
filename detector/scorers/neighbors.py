"""Nearest neighbors: the fraction of a feature vector's neighbors that are adversarial.

The paper's own detector (section 4.2.1). The same numbers as scikit-learn's KNeighborsClassifier, by torch matrix
products and top-k on any device. Where references at the k-th distance tie, those that come first in the reference set
are the neighbors: scikit-learn's answer when its training rows are ordered by distance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError
from modeguard.detector.records import Leaf, check_shapes
from modeguard.detector.scorers.scaling import Scaling, ScalingName, fit_scaling
from modeguard.detector.scorers.scorer import References

Weights = Literal["uniform", "distance"]
Metric = Literal["euclidean", "manhattan"]

# Distances from matrix products lose digits to cancellation: this many more candidates are ranked again exactly.
_SPARE_CANDIDATES = 16
_ENTRIES_PER_SLICE = 4_000_000


@dataclass(frozen=True, slots=True)
class NeighborsOptions:
    """How images are compared with their neighbors.

    Attributes:
        n_neighbors: k, at least 1 and at most the references.
        weights: how much a neighbor counts: all the same, or by the inverse of its distance.
        metric: distance between scaled features.
        scaling: how features are made comparable, see `fit_scaling`.
    """

    kind: ClassVar[str] = "neighbors"

    n_neighbors: int = 25
    weights: Weights = "distance"
    metric: Metric = "euclidean"
    scaling: ScalingName = "standard"

    def __post_init__(self) -> None:
        if self.n_neighbors < 1:
            raise DetectorInputError(f"n_neighbors is at least 1, got {self.n_neighbors}")
        for name, known in (("weights", Weights), ("metric", Metric), ("scaling", ScalingName)):
            if getattr(self, name) not in get_args(known):
                raise DetectorInputError(f"{name} is one of {get_args(known)}, got {getattr(self, name)!r}")

    def fit(self, references: References) -> "Neighbors":
        """Keep the references' features, scaled.

        Raises:
            DetectorInputError: if a kind of image is missing, or there are fewer references than neighbors.
        """
        if bool(references.is_adversarial.all()) or not bool(references.is_adversarial.any()):
            raise DetectorInputError("the fit set needs natural and adversarial images, got one kind only")
        scaling = fit_scaling(references.features, self.scaling)
        return Neighbors(self, scaling.apply(references.features.detach()), references.is_adversarial, scaling)


@dataclass(frozen=True, slots=True, eq=False)
class Neighbors:
    """Reference features and how to compare with them.

    Attributes:
        options: how.
        features: (n_reference, n_features) float64, scaled.
        is_adversarial: (n_reference,) bool.
        scaling: what was done to the references, and is done to every image.
    """

    options: NeighborsOptions
    features: Annotated[Tensor, Leaf("n_reference n_features", torch.float64)]
    is_adversarial: Annotated[Tensor, Leaf("n_reference", torch.bool)]
    scaling: Scaling

    def __post_init__(self) -> None:
        check_shapes(self)
        if self.options.n_neighbors > len(self.features):
            raise DetectorInputError(
                f"n_neighbors is within 1..{len(self.features)} (the reference images), got {self.options.n_neighbors}"
            )
        if self.scaling.scale.shape != self.features.shape[1:]:
            raise DetectorInputError(
                f"the scaling is of {len(self.scaling.scale)} features, the references have {self.features.shape[1]}"
            )
        if not bool(torch.isfinite(self.features).all()):
            raise DetectorInputError("reference features are finite; drop images that cannot be judged")

    @property
    def decision(self) -> float:
        """More than half of the votes."""
        return 0.5

    @property
    def is_differentiable(self) -> bool:
        """Whether a score changes smoothly with the features."""
        return self.options.weights == "distance"

    def score(self, features: Tensor) -> Tensor:
        """Weighted fraction of adversarial images among the nearest references.

        Differentiable with respect to the features where `is_differentiable`.

        Args:
            features: (n, n_features), unscaled, finite.

        Returns:
            (n,) float64 in [0, 1], higher is more adversarial.

        Raises:
            DetectorInputError: if the number of features is another.
        """
        return _share(*self.nearest(features), self.options.weights)

    def nearest(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (n, n_neighbors) of the neighbors, nearest first, and their votes: 1 for adversarial.

        Args:
            features: (n, n_features), unscaled, finite.

        Raises:
            DetectorInputError: if the number of features is another.
        """
        if features.ndim != 2 or features.shape[1] != self.features.shape[1]:
            raise DetectorInputError(
                f"features of shape (n, {self.features.shape[1]}) were expected, got {tuple(features.shape)}"
            )
        queries = self.scaling.apply(features)
        rows = max(1, _ENTRIES_PER_SLICE // max(len(self.features), self.options.n_neighbors * features.shape[1]))
        # no queries make one empty slice
        slices = [self._nearest(part) for part in queries.split(rows)]
        distances, indices = (torch.cat(each) for each in zip(*slices, strict=True))
        return distances, self.is_adversarial[indices].to(distances.dtype)

    def _nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Distances and indices (n, k) of the neighbors, nearest first, ties in reference order."""
        n_candidates = min(len(self.features), self.options.n_neighbors + _SPARE_CANDIDATES)
        coarse = _coarse_distances(queries.detach(), self.features, self.options.metric)
        candidates = _with_ties_in_order(coarse, n_candidates)
        differences = queries[:, None, :] - self.features[candidates]
        order = 2 if self.options.metric == "euclidean" else 1
        exact = torch.linalg.vector_norm(differences, ord=order, dim=2)
        ranking = exact.detach().sort(dim=1, stable=True).indices[:, : self.options.n_neighbors]
        return exact.gather(1, ranking), candidates.gather(1, ranking)


def score_neighbors_each(options: Sequence[NeighborsOptions], references: References, features: Tensor) -> list[Tensor]:
    """See `score_each`; choices that measure distance alike look for their neighbors once."""
    found: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}
    scores = []
    for each in options:
        if (each.scaling, each.metric) not in found:
            alike = [other for other in options if (other.scaling, other.metric) == (each.scaling, each.metric)]
            widest = max(alike, key=lambda other: other.n_neighbors)
            found[each.scaling, each.metric] = widest.fit(references).nearest(features)
        distances, votes = (tensor[:, : each.n_neighbors] for tensor in found[each.scaling, each.metric])
        scores.append(_share(distances, votes, each.weights))
    return scores


def _share(distances: Tensor, votes: Tensor, weights: Weights) -> Tensor:
    """Weighted share (n,) of the votes (n, k); where neighbors lie at distance 0, only these count."""
    if weights == "uniform":
        return votes.mean(dim=1)
    is_same = distances == 0
    # the inner `where` keeps 1 / 0, whose gradient is NaN, out of the graph
    inverse = torch.where(is_same, 0.0, 1 / torch.where(is_same, 1.0, distances))
    weight = torch.where(is_same.any(dim=1, keepdim=True), is_same.to(distances.dtype), inverse)
    return (weight * votes).sum(dim=1) / weight.sum(dim=1)


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
    nearest = distances.topk(n_candidates, dim=1, largest=False)
    cut = nearest.values[:, -1:]
    slack = 1e-9 * (1 + cut.abs())
    # mostly no more lie within the cut than there are places: then top-k has them all, at a quarter of the time
    if bool(((distances <= cut + slack).sum(dim=1) == n_candidates).all()):
        return nearest.indices.sort(dim=1).values
    is_inside = distances < cut - slack
    is_tied = (distances <= cut + slack) & ~is_inside
    places_left = n_candidates - is_inside.sum(dim=1, keepdim=True)
    is_chosen = is_inside | (is_tied & (is_tied.cumsum(dim=1) <= places_left))
    # as many are chosen in every row, so the columns of all rows, which nonzero gives in order, are a rectangle
    return is_chosen.nonzero()[:, 1].reshape(len(distances), n_candidates)
