"""Conformal p-values: golden values, and the finite-sample guarantee by simulation."""

import pytest
import torch

from modeguard.detector import (
    DetectorInputError,
    conformal_p_values,
    is_flagged,
    is_judged,
    smallest_calibration_set,
    threshold,
)


def test_p_values_count_the_calibration_scores_at_least_as_high() -> None:
    calibration = torch.tensor([0.1, 0.2, 0.2, 0.7], dtype=torch.float64)
    scores = torch.tensor([0.0, 0.1, 0.2, 0.5, 0.7, 0.9], dtype=torch.float64)
    expected = torch.tensor([5, 5, 4, 2, 2, 1], dtype=torch.float64) / 5
    torch.testing.assert_close(conformal_p_values(scores, calibration), expected)


@pytest.mark.parametrize("n_calibration", [19, 50, 333])
@pytest.mark.parametrize("target", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("n_levels", [None, 5])
def test_natural_images_are_flagged_at_most_at_the_target_rate(
    n_calibration: int, target: float, n_levels: int | None
) -> None:
    """P(p <= a) <= a over calibration set and image, for continuous scores and for scores full of ties.

    For continuous scores it is also at least a - 1 / (m + 1), so the threshold is not needlessly careful.
    """
    generator = torch.Generator().manual_seed(n_calibration)
    n_repeats = 4_000
    draws = torch.rand((n_repeats, n_calibration + 1), generator=generator, dtype=torch.float64)
    if n_levels is not None:
        draws = (draws * n_levels).floor()
    calibration, image = draws[:, :-1].sort(dim=1).values, draws[:, -1:]
    p_values = torch.cat([conformal_p_values(one, of) for one, of in zip(image, calibration, strict=True)])
    rate = float((p_values <= target).double().mean())
    three_sigma = 3 * (target * (1 - target) / n_repeats) ** 0.5
    assert rate <= target + three_sigma
    if n_levels is None:
        assert rate >= target - 1 / (n_calibration + 1) - three_sigma


def test_a_rate_calibrated_without_the_image_itself_would_break_the_guarantee() -> None:
    """The simulation above can fail: plain empirical p-values flag too many."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand((20_000, 20), generator=generator, dtype=torch.float64)
    plain = (draws[:, :-1] >= draws[:, -1:]).double().mean(dim=1)
    assert float((plain <= 0.06).double().mean()) > 0.09


def test_an_empty_calibration_set_is_refused() -> None:
    with pytest.raises(DetectorInputError, match="at least one natural"):
        conformal_p_values(torch.tensor([0.5]), torch.tensor([]))


@pytest.mark.parametrize(("target", "needed"), [(0.05, 19), (0.01, 99), (0.5, 1), (0.3, 3)])
def test_smallest_calibration_set_just_allows_a_flag(target: float, needed: int) -> None:
    assert smallest_calibration_set(target) == needed
    assert 1 / (needed + 1) <= target < 1 / needed


@pytest.mark.parametrize("n_levels", [3, 12, 10**6])
@pytest.mark.parametrize("n_calibration", [40, 99, 100, 251])
@pytest.mark.parametrize("target_fpr", [0.03, 0.05, 0.1, 0.5])
def test_threshold_is_where_the_p_value_reaches_the_target(
    n_calibration: int, target_fpr: float, n_levels: int
) -> None:
    generator = torch.Generator().manual_seed(n_calibration)
    scores = torch.randint(n_levels, (n_calibration,), generator=generator).double().sort().values / n_levels
    limit = threshold(scores, target_fpr)
    asked = torch.cat([scores, torch.tensor([limit, -1.0, 2.0])])
    assert torch.equal(asked > limit, is_flagged(conformal_p_values(asked, scores), target_fpr))


def test_only_images_with_finite_features_are_judged() -> None:
    features = torch.tensor([[0.0, 1.0], [float("nan"), 1.0], [0.0, float("inf")]])
    assert is_judged(features).tolist() == [True, False, False]
