"""Metrics against hand-made cases, and intervals against their meaning."""

import numpy as np
import pytest

from modeguard.offline.evaluation.metrics import (
    METRICS,
    EvaluationError,
    PairedScores,
    auroc,
    balanced_accuracy,
    fpr_at_tpr,
    measure,
    tpr_at_fpr,
)

SEPARATE = PairedScores(np.array([0.1, 0.2, 0.3]), np.array([0.7, 0.8, 0.9]), 0.5)
REVERSED = PairedScores(SEPARATE.adversarial, SEPARATE.natural, 0.5)
MIXED = PairedScores(np.arange(100) / 100, np.arange(50, 150) / 100, 0.5)


def test_perfect_separation_and_its_reverse() -> None:
    assert auroc(SEPARATE) == 1
    assert auroc(REVERSED) == 0
    assert balanced_accuracy(SEPARATE) == 1
    assert balanced_accuracy(REVERSED) == 0
    assert tpr_at_fpr(SEPARATE, 0.01) == 1
    assert fpr_at_tpr(SEPARATE, 0.95) == 0


def test_auroc_is_the_fraction_of_pairs_in_order() -> None:
    n, a = MIXED.natural, MIXED.adversarial
    in_order = (a[:, None] > n[None]).mean() + 0.5 * (a[:, None] == n[None]).mean()
    assert auroc(MIXED) == pytest.approx(in_order)


def test_operating_points_count_images() -> None:
    """Scores above 0.94 flag 5 of 100 natural images and 55 of 100 adversarial ones."""
    assert tpr_at_fpr(MIXED, 0.05) == pytest.approx(0.55)
    assert fpr_at_tpr(MIXED, 0.95) == pytest.approx(0.45)
    assert balanced_accuracy(MIXED) == pytest.approx((0.51 + 0.99) / 2)


def test_balanced_accuracy_is_at_the_scorers_own_decision() -> None:
    """A score may be any real number."""
    shifted = PairedScores(SEPARATE.natural - 40, SEPARATE.adversarial - 40, -39.5)
    assert balanced_accuracy(shifted) == balanced_accuracy(SEPARATE)
    assert balanced_accuracy(PairedScores(shifted.natural, shifted.adversarial, 0.5)) == 0.5


def test_an_interval_contains_the_truth_about_as_often_as_it_says() -> None:
    """AUROC of two normals one apart is Phi(1 / sqrt 2) = 0.7602."""
    generator = np.random.default_rng(0)
    n_inside = 0
    for _ in range(100):
        pairs = PairedScores(generator.normal(0, 1, 150), generator.normal(1, 1, 150), 0.5)
        interval = measure(pairs, n_bootstrap=100, confidence=0.9, generator=generator)["auroc"]
        n_inside += interval.low <= 0.7602 <= interval.high
    assert 78 <= n_inside <= 98


def test_every_metric_is_measured_within_its_interval_and_repeats() -> None:
    first = measure(MIXED, n_bootstrap=50, confidence=0.95, generator=np.random.default_rng(1))
    again = measure(MIXED, n_bootstrap=50, confidence=0.95, generator=np.random.default_rng(1))
    assert first == again
    assert first.keys() == METRICS.keys()
    assert all(0 <= each.low <= each.value <= each.high <= 1 for each in first.values())


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(EvaluationError, match="got 0 and 3"):
        PairedScores(np.array([]), SEPARATE.adversarial, 0.5)
