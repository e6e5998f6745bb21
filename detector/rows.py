"""What the method asks of a classifier, counted in rows: one row is one image through the classifier once.

A classifier around a classifier is a classifier: `Sliced` bounds what goes through at a time, `Counted` counts it.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from modeguard.detector.errors import DetectorInputError

ROWS_PER_CALL = 256


class Classifier(Protocol):
    """Pixels in, logits out; the normalisation of the pixels lives inside."""

    n_classes: int
    input_shape: tuple[int, int, int]

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (n, n_classes) of images (n, c, h, w) with pixels in [0, 1]."""
        ...


class FeatureMapClassifier(Classifier, Protocol):
    """A classifier that can be looked into: for questions that need more than its logits."""

    def feature_maps(self, images: Tensor, layers: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits, and what some layers answer on the way to them; differentiable with respect to the images.

        Args:
            images: (n, c, h, w) with pixels in [0, 1].
            layers: named as `torch.nn.Module.named_modules` of the network names them.

        Returns:
            (n, n_classes), and floating-point tensors by layer, in the order asked for.
        """
        ...


class Sliced:
    """A classifier that takes any number of rows, also none, and hands them on in slices.

    An empty slice never reaches the classifier. Under gradients the activations of a slice are computed again when
    they are needed (checkpointing), so that memory is bounded there too.

    Args:
        classifier: what answers.
        rows_per_call: bound on the rows of one call of it, at least 1.

    Raises:
        DetectorInputError: if the bound is below 1.
    """

    def __init__(self, classifier: Classifier, rows_per_call: int = ROWS_PER_CALL) -> None:
        if rows_per_call < 1:
            raise DetectorInputError(f"rows_per_call is at least 1, got {rows_per_call}")
        self.n_classes = classifier.n_classes
        self.input_shape = classifier.input_shape
        self._classifier = classifier
        self._rows_per_call = rows_per_call

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (n, n_classes), float32 or wider; differentiable with respect to the images."""
        if len(images) == 0:
            return images.new_zeros((0, self.n_classes), dtype=torch.float32)
        return torch.cat([at_least_float32(self._answer(rows)) for rows in images.split(self._rows_per_call)])

    def _answer(self, rows: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and rows.requires_grad):
            return self._classifier(rows)
        logits: Tensor = checkpoint(self._classifier, rows, use_reentrant=False, preserve_rng_state=False)
        return logits


class Counted:
    """A classifier that counts the rows that go through it, the unit of cost."""

    def __init__(self, classifier: Classifier) -> None:
        self.n_classes = classifier.n_classes
        self.input_shape = classifier.input_shape
        self.n_rows = 0
        self._classifier = classifier

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of the classifier that is counted for."""
        self.n_rows += len(images)
        return self._classifier(images)


def at_least_float32(values: Tensor) -> Tensor:
    """The same values in float32, or as they are where they are wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def check_images(classifier: Classifier, images: Tensor) -> None:
    """Refuse a batch that the classifier was not made for.

    Raises:
        DetectorInputError: naming the shape or type that was expected.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != tuple(classifier.input_shape):
        expected = ("n", *classifier.input_shape)
        raise DetectorInputError(f"images of shape {expected} were expected, got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise DetectorInputError(
            f"pixels are floating point in [0, 1], got {images.dtype}; convert bytes with modeguard.detector.to_pixels"
        )
