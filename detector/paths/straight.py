"""The straight line from an image to a template.

"Input Space Mode Connectivity in Deep Neural Networks", section 3.1 equation 3. Here alpha is 0 at the image
and 1 at the template.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError


def straight_path(images: Tensor, far_ends: Tensor, alphas: Tensor) -> Tensor:
    """Points (1 - alpha) image + alpha template, the paper's equation 3; differentiable with respect to the images.

    Args:
        images: (n, c, h, w).
        far_ends: (n, n_templates, c, h, w), where the paths of each image lead.
        alphas: (n_points,), 0 at the image and 1 at the template.

    Returns:
        (n, n_templates, n_points, c, h, w), the dtype of the images.
    """
    # lerp broadcasts: an image over its templates and points, a template over the points, an alpha over the pixels
    return torch.lerp(
        images[:, None, None], far_ends[:, :, None].to(images.dtype), alphas.to(images.dtype)[:, None, None, None]
    )


def evenly_spaced(n_points: int) -> tuple[float, ...]:
    """Alphas from image to template, both included, rounded so that nested grids share their points.

    Args:
        n_points: at least 2.
    """
    return tuple(round(index / (n_points - 1), 9) for index in range(n_points))


def check_alphas(alphas: Sequence[float]) -> None:
    """Refuse alphas that are not ascending within [0, 1].

    Raises:
        DetectorInputError: saying what came.
    """
    narrow = torch.tensor(alphas, dtype=torch.float32).tolist()  # what paths are computed in, at the least
    is_ascending = all(low < high for low, high in pairwise(narrow))
    is_end = [(alpha in (0, 1)) == (rounded in (0, 1)) for alpha, rounded in zip(alphas, narrow, strict=True)]
    is_within = len(alphas) > 0 and 0 <= alphas[0] <= alphas[-1] <= 1  # which NaN is not
    if not is_ascending or not all(is_end) or not is_within:
        raise DetectorInputError(f"alphas are ascending within [0, 1], also in float32, got {list(alphas)}")
