"""Classifiers around classifiers: slices and counts."""

import pytest
import torch
from torch import Tensor

from modeguard.detector import ClassTemplates, Counted, DetectorInputError, Sliced
from modeguard.detector.questions import Curves, observe
from modeguard.detector.rows import ROWS_PER_CALL
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


@pytest.mark.parametrize("bound", [10, 2 * ROWS_PER_CALL])
def test_a_bound_of_ones_own_holds_lower_or_higher(images: Tensor, templates: ClassTemplates, bound: int) -> None:
    """As an operator sets it, also where the rows are counted on the way."""
    inner = ToyClassifier()
    many = torch.cat([images] * 10)
    leaf = many.clone().requires_grad_(True)
    answer = observe({"curves": Curves((0.0, 0.5, 1.0))}, Counted(Sliced(inner, bound)), leaf, templates)
    n_rows = inner.n_rows
    assert inner.largest_call == bound
    answer.at_image.logits.sum().backward()
    assert inner.n_rows - n_rows == len(many)  # computed again once


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(DetectorInputError, match="at least 1, got 0"):
        Sliced(ToyClassifier(), 0)
