"""Gradients with respect to the pixels, one an image."""

from collections.abc import Callable

import torch
from torch import Tensor

RowLoss = Callable[[Tensor], Tensor]
"""Images (n, c, h, w) to one loss an image (n,), differentiable; no image's loss depends on another image."""


def input_gradient(loss: RowLoss, images: Tensor) -> Tensor:
    """Gradient (n, c, h, w) of each image's loss with respect to that image; nothing else gets a gradient."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        # rows are independent, so the gradient of the sum holds each row's own
        (gradient,) = torch.autograd.grad(loss(images).sum(), images)
    return gradient


def per_image(values: Tensor) -> Tensor:
    """One number an image (n,), shaped (n, 1, 1, 1) so that it multiplies images and gradients."""
    return values[:, None, None, None]
