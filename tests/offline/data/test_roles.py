"""Dealing out test images: disjoint parts, the protocol's folds, and refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from modeguard.offline.data import SplitConfig, SplitError, deal_folds, deal_roles


def test_no_image_has_two_parts_and_sources_are_correct() -> None:
    is_correct = torch.rand(1000, generator=torch.Generator().manual_seed(0)) < 0.9
    roles = deal_roles(SplitConfig(n_calibration=200, n_sources=400, n_extra=100), is_correct, seed=1)
    used = torch.cat([roles.calibration, roles.sources, roles.extra])
    assert len(used) == len(used.unique()) == 700
    assert is_correct[roles.sources].all()
    assert is_correct[roles.extra].all()


def test_calibration_images_come_as_they_are() -> None:
    """Half of all images are misclassified, so about half of the calibration images must be."""
    is_correct = torch.arange(2000) % 2 == 0
    roles = deal_roles(SplitConfig(n_calibration=400, n_sources=100), is_correct, seed=0)
    assert 0.4 < float(is_correct[roles.calibration].double().mean()) < 0.6


def test_folds_are_those_of_the_protocol() -> None:
    """harder2021: first 20 % for the test, then 16 % of all for validation, random_state 42."""
    folds = deal_folds(SplitConfig(n_calibration=1, n_sources=500))
    rest, test = train_test_split(list(range(500)), test_size=0.2, random_state=42)
    _, validation = train_test_split(rest, test_size=0.2, random_state=42)
    assert folds.is_test.nonzero()[:, 0].tolist() == sorted(test)
    assert folds.validation_parts[0].nonzero()[:, 0].tolist() == sorted(validation)


@settings(deadline=None, max_examples=200)
@given(st.integers(40, 400), st.floats(0.05, 0.8), st.floats(0.06, 0.45), st.integers(0, 2**32 - 1))
def test_folds_are_those_that_scikit_learn_deals(n: int, test_fraction: float, of_rest: float, seed: int) -> None:
    validation_fraction = of_rest * (1 - test_fraction)
    folds = deal_folds(SplitConfig(1, n, 0, 0, validation_fraction, test_fraction, seed))
    rest, test = train_test_split(np.arange(n), test_size=test_fraction, random_state=seed)
    share = validation_fraction / (1 - test_fraction)
    fit, validation = train_test_split(rest, test_size=share, random_state=seed)
    assert folds.is_test.nonzero()[:, 0].tolist() == sorted(test)
    assert folds.validation_parts[0].nonzero()[:, 0].tolist() == sorted(validation)
    assert folds.validation_parts[1:].any(dim=0).nonzero()[:, 0].tolist() == sorted(fit)


@pytest.mark.parametrize(("validation_fraction", "n_parts"), [(0.04, 20), (0.16, 5), (0.2, 4), (0.35, 2), (0.4, 2)])
def test_every_source_is_for_the_test_or_validates_once(validation_fraction: float, n_parts: int) -> None:
    folds = deal_folds(SplitConfig(n_calibration=1, n_sources=500, validation_fraction=validation_fraction))
    assert folds.validation_parts.shape == (n_parts, 500)
    assert torch.equal(folds.validation_parts.sum(dim=0) + folds.is_test, torch.ones(500, dtype=torch.int64))
    sizes = folds.validation_parts.sum(dim=1) / (500 * validation_fraction)
    assert ((sizes > 0.8) & (sizes < 1.3)).all()


def test_too_few_images_are_refused_with_the_counts() -> None:
    is_correct = torch.arange(100) < 60
    with pytest.raises(SplitError, match=r"10 calibration images and 80 correctly .* of 100 test images 5\d correctly"):
        deal_roles(SplitConfig(n_calibration=10, n_sources=70, n_extra=10), is_correct, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_sources": 0}, "at least 1"),
        ({"n_sources": 1}, "1 sources cannot be split into test fold and parts"),
        (
            {"n_sources": 3},
            "3 sources cannot be split into test fold and parts that leave something to fit; raise n_sources",
        ),
        ({"n_extra": -1}, "at least 0"),
        ({"test_fraction": 0.9}, "leave something to fit"),
        ({"validation_fraction": 0.0}, "positive"),
        ({"validation_fraction": 1e-6}, r"2 to 20 parts, so validation_fraction lies within 0\.04 and 0\.4 here"),
        ({"validation_fraction": 0.45}, r"got 0\.45"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        SplitConfig(**{"n_calibration": 10, "n_sources": 10, **changes})  # type: ignore[arg-type]
