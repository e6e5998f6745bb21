"""Neighbors against scikit-learn's KNeighborsClassifier, ties included."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import RobustScaler, StandardScaler
from torch import Tensor

from modeguard.detector import DetectorInputError
from modeguard.detector.scorers import (
    Metric,
    Neighbors,
    NeighborsOptions,
    References,
    ScalingName,
    Weights,
    fit_scaling,
    score_each,
)

METRICS: tuple[Metric, ...] = ("euclidean", "manhattan")
WEIGHTS: tuple[Weights, ...] = ("uniform", "distance")
SCALINGS: tuple[ScalingName, ...] = ("none", "robust")


def fit_neighbors(features: Tensor, is_adversarial: Tensor, **options: Any) -> Neighbors:
    """Neighbors of references that belong to nobody."""
    rows = torch.arange(len(features))
    return NeighborsOptions(**options).fit(References(features.double(), is_adversarial, rows, rows))


def sklearn_scores(
    references: Tensor, labels: Tensor, queries: Tensor, k: int, weights: Weights, metric: Metric
) -> Tensor:
    """Its tree, unlike its brute force, computes distances without cancellation."""
    classifier = KNeighborsClassifier(
        n_neighbors=k, weights=weights, metric=metric, algorithm="kd_tree", leaf_size=10**6
    )
    classifier.fit(references.numpy(), labels.numpy())
    return torch.from_numpy(classifier.predict_proba(queries.numpy())[:, 1])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("k", [1, 9, 150])
def test_scores_are_those_of_scikit_learn(metric: Metric, weights: Weights, k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    references = torch.randn((500, 40), generator=generator, dtype=torch.float64)
    queries = torch.cat([torch.randn((200, 40), generator=generator, dtype=torch.float64), references[:20]])
    labels = torch.rand(500, generator=generator) < 0.4
    ours = fit_neighbors(references, labels, n_neighbors=k, weights=weights, metric=metric, scaling="none")
    expected = sklearn_scores(references, labels, queries, k, weights, metric)
    torch.testing.assert_close(ours.score(queries), expected, atol=1e-6, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), k=st.integers(1, 12), metric=st.sampled_from(METRICS), weights=st.sampled_from(WEIGHTS)
)
def test_ties_are_broken_as_scikit_learn_does_on_rows_ordered_by_distance(
    seed: int, k: int, metric: Metric, weights: Weights
) -> None:
    """Small integers tie everywhere. scikit-learn's answer to ties depends on the order of its training rows."""
    generator = torch.Generator().manual_seed(seed)
    references = torch.randint(0, 3, (60, 3), generator=generator).double()
    labels = torch.rand(60, generator=generator) < 0.5
    labels[:2] = torch.tensor([True, False])
    queries = torch.randint(0, 3, (6, 3), generator=generator).double()
    ours = fit_neighbors(references, labels, n_neighbors=k, weights=weights, metric=metric, scaling="none").score(
        queries
    )
    for query, score in zip(queries, ours, strict=True):
        distances = torch.linalg.vector_norm(references - query, ord=2 if metric == "euclidean" else 1, dim=1)
        order = distances.sort(stable=True).indices
        expected = sklearn_scores(references[order], labels[order], query[None], k, weights, metric)
        torch.testing.assert_close(score[None], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_ties_among_references_of_one_label_need_no_order(metric: Metric, weights: Weights) -> None:
    """With the label a function of the point, copies may be exchanged freely, so scikit-learn agrees as it is."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn((40, 5), generator=generator, dtype=torch.float64)
    copies = torch.randint(0, 40, (300,), generator=generator)
    references, labels = points[copies], copies % 2 == 0
    queries = torch.cat([points, points + 0.05])
    ours = fit_neighbors(references, labels, n_neighbors=10, weights=weights, metric=metric, scaling="none")
    expected = sklearn_scores(references, labels, queries, 10, weights, metric)
    torch.testing.assert_close(ours.score(queries), expected, atol=1e-6, rtol=0)


def test_choices_that_share_their_neighbors_score_as_each_by_itself() -> None:
    """Small integers tie everywhere."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randint(0, 4, (120, 3), generator=generator).double()
    labels, rows = torch.rand(120, generator=generator) < 0.4, torch.arange(120)
    references, queries = References(features, labels, rows, rows), features[:30] + torch.tensor([0.0, 0.5, 0.0])
    choices = [
        NeighborsOptions(k, weights, metric, scaling)
        for scaling, metric, k, weights in product(SCALINGS, METRICS, (1, 7, 30), WEIGHTS)
    ]
    together = score_each(choices, references, queries)
    assert len(together) == len(choices)
    for scores, options in zip(together, choices, strict=True):
        torch.testing.assert_close(scores, options.fit(references).score(queries), atol=1e-9, rtol=0)
    assert [len(scores) for scores in score_each(choices[:2], references, queries[:0])] == [0, 0]


def test_features_of_very_different_size_keep_their_digits() -> None:
    """A matrix product alone would lose small differences beside a large common offset."""
    generator = torch.Generator().manual_seed(0)
    references = torch.randn((300, 4), generator=generator, dtype=torch.float64) * 1e-3 + 1e4
    labels = torch.rand(300, generator=generator) < 0.5
    queries = torch.randn((50, 4), generator=generator, dtype=torch.float64) * 1e-3 + 1e4
    ours = fit_neighbors(references, labels, n_neighbors=5, weights="distance", scaling="none").score(queries)
    exact = KNeighborsClassifier(n_neighbors=5, weights="distance", algorithm="kd_tree").fit(references, labels)
    torch.testing.assert_close(ours, torch.from_numpy(exact.predict_proba(queries)[:, 1]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("scaling", "scaler"), [("standard", StandardScaler), ("robust", RobustScaler)])
def test_scaling_is_that_of_scikit_learn(scaling: ScalingName, scaler: type) -> None:
    features = torch.randn((80, 6), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 7 + 3
    features[:, 2] = 5.0
    ours = fit_neighbors(features, torch.arange(80) > 30, n_neighbors=3, scaling=scaling)
    np.testing.assert_allclose(ours.features.numpy(), scaler().fit_transform(features.numpy()), atol=1e-9)


@pytest.mark.parametrize("n", [3, 9, 49, 1000])
@pytest.mark.parametrize(("scaling", "scaler"), [("standard", StandardScaler), ("robust", RobustScaler)])
def test_a_constant_feature_is_divided_by_one(scaling: ScalingName, scaler: type, n: int) -> None:
    """Its computed deviation is often not 0 but an error of rounding."""
    for constant in (0.1, -3.3, 1e6 / 3, 0.0):
        features = torch.full((n, 1), constant, dtype=torch.float64)
        ours = fit_scaling(features, scaling)
        assert ours.scale.tolist() == [1]
        np.testing.assert_allclose(ours.scale.numpy(), scaler().fit(features.numpy()).scale_)


def test_a_query_does_not_depend_on_its_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((200, 8), generator=generator)
    ours = fit_neighbors(features, torch.arange(200) > 90, n_neighbors=7)
    queries = torch.randn((30, 8), generator=generator)
    alone = torch.cat([ours.score(query[None]) for query in queries])
    torch.testing.assert_close(ours.score(queries), alone, atol=1e-9, rtol=0)


def test_distance_weights_can_be_differentiated() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((50, 3), generator=generator, dtype=torch.float64)
    ours = fit_neighbors(features, torch.arange(50) > 20, n_neighbors=5, weights="distance")
    query = torch.randn((4, 3), generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ours.score, (query,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neighbors": 0}, "at least 1"),
        ({"n_neighbors": 21}, r"within 1\.\.20"),
        ({"n_neighbors": 3, "weights": "gaussian"}, "'gaussian'"),
        ({"n_neighbors": 3, "metric": "cosine"}, "'cosine'"),
        ({"n_neighbors": 3, "scaling": "log"}, "'log'"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(DetectorInputError, match=message):
        fit_neighbors(torch.randn(20, 2), torch.arange(20) > 9, **options)


def test_one_kind_of_image_is_refused() -> None:
    with pytest.raises(DetectorInputError, match="natural and adversarial"):
        fit_neighbors(torch.randn(20, 2), torch.zeros(20, dtype=torch.bool), n_neighbors=3)
