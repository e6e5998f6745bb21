"""Classifiers around classifiers: slices and counts."""

import pytest
import torch
from torch import Tensor

from modeguard.detector import Counted, DetectorInputError, Sliced
from tests.conftest import ToyClassifier


@pytest.mark.parametrize("rows_per_call", [1, 7, 64, 1000])
def test_slices_bound_the_calls_and_change_nothing(images: Tensor, rows_per_call: int) -> None:
    classifier = ToyClassifier()
    torch.testing.assert_close(Sliced(classifier, rows_per_call)(images), ToyClassifier()(images))
    assert classifier.largest_call == min(rows_per_call, 64)
    assert classifier.n_rows == 64


def test_no_rows_are_answered_without_the_classifier(images: Tensor) -> None:
    classifier = ToyClassifier()
    assert Sliced(classifier)(images[:0]).shape == (0, 4)
    assert classifier.largest_call == classifier.n_rows == 0


def test_answers_are_float32_or_wider(images: Tensor) -> None:
    class Half(ToyClassifier):
        def __call__(self, images: Tensor) -> Tensor:
            return super().__call__(images).to(torch.bfloat16)

    assert Sliced(Half())(images).dtype == torch.float32
    assert Sliced(ToyClassifier())(images).dtype == torch.float64


def test_under_gradients_a_slice_is_computed_again_and_gives_the_same_gradient(images: Tensor) -> None:
    """What is computed again need not be remembered."""

    def gradient_through(classifier: Sliced | ToyClassifier) -> Tensor:
        leaf = images.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(classifier(leaf).square().sum(), leaf)
        return gradient

    inner = ToyClassifier()
    torch.testing.assert_close(gradient_through(Sliced(inner, 10)), gradient_through(ToyClassifier()))
    assert inner.n_rows == 2 * 64


def test_counting_counts_rows(images: Tensor) -> None:
    counted = Counted(ToyClassifier())
    counted(images)
    counted(images[:3])
    assert counted.n_rows == 67


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(DetectorInputError, match="at least 1, got 0"):
        Sliced(ToyClassifier(), 0)
