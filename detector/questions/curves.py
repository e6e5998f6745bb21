"""Loss curves: the classifier's loss on the straight line from an image to its class templates.

Seed paper "Input Space Mode Connectivity in Deep Neural Networks", section 3.1 equation 3 (the path) and section
4.2.1 (the curve as a feature). Here alpha is 0 at the image and 1 at the template.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError
from modeguard.detector.rows import ROWS_PER_CALL, Classifier, at_least_float32, batched_logits
from modeguard.detector.templates import ClassTemplates


@dataclass(frozen=True, slots=True, eq=False)
class LossCurves:
    """What the classifier says of n images and of the paths to the templates of their predicted classes.

    Attributes:
        predicted: (n,) int64, argmax of the logits at the image itself.
        logits: (n, n_classes) at the image itself.
        alphas: (n_points,) ascending in [0, 1].
        losses: (n, n_templates, n_points) cross-entropy of `predicted` along each path; NaN where the class has no
            template.
        margins: (n, n_templates, n_points) logit of `predicted` minus the largest other logit, from the same rows.
        n_rows: rows that went through the classifier to compute this, the unit of cost.
    """

    predicted: Tensor
    logits: Tensor
    alphas: Tensor
    losses: Tensor
    margins: Tensor
    n_rows: int

    @property
    def is_covered(self) -> Tensor:
        """(n,) bool: the predicted class has templates, so that the curve exists."""
        return ~self.losses[:, 0, 0].isnan()

    def select(self, alphas: Sequence[float], n_templates: int) -> "LossCurves":
        """The same curves on fewer points and templates, at no cost; `n_rows` stays what was spent.

        Raises:
            DetectorInputError: if an alpha or so many templates were not computed.
        """
        wanted = torch.as_tensor(alphas, dtype=self.alphas.dtype, device=self.alphas.device)
        distance, points = (wanted[:, None] - self.alphas[None]).abs().min(dim=1)
        if bool((distance > 1e-6).any()) or not 1 <= n_templates <= self.losses.shape[1]:
            raise DetectorInputError(
                f"curves at alphas {self.alphas.tolist()} to {self.losses.shape[1]} templates hold no selection of "
                f"alphas {list(alphas)} and {n_templates} templates"
            )
        return replace(
            self,
            alphas=wanted,
            losses=self.losses[:, :n_templates, points],
            margins=self.margins[:, :n_templates, points],
        )


def barrier_heights(curves: LossCurves) -> Tensor:
    """Highest loss on each path, seed section 4.2 and Figure 6.

    Returns:
        (n, n_templates).
    """
    return curves.losses.amax(dim=2)


def barrier_gaps(curves: LossCurves) -> Tensor:
    """Barrier height minus the higher of the two ends, seed Figure 6.

    Returns:
        (n, n_templates), at least 0 when both ends are among the alphas.
    """
    return barrier_heights(curves) - torch.maximum(curves.losses[..., 0], curves.losses[..., -1])


def cross_entropy_and_margin(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and logit margin of one class a row, in float32 or wider.

    Args:
        logits: (n, n_classes).
        classes: (n,) int64.

    Returns:
        losses (n,), at least 0, and margins (n,), positive exactly where the class is the only argmax.
    """
    logits = at_least_float32(logits)
    own = logits.gather(1, classes[:, None])[:, 0]
    losses = 0 - torch.log_softmax(logits, dim=1).gather(1, classes[:, None])[:, 0]  # not -x, which gives -0.0
    others = logits.scatter(1, classes[:, None], float("-inf")).amax(dim=1)
    return losses, own - others


def path_points(images: Tensor, templates: Tensor, alphas: Tensor) -> Tensor:
    """Points of straight lines from images to templates, seed equation 3.

    Args:
        images: (n, c, h, w).
        templates: (n, c, h, w), the other ends.
        alphas: (n,), 0 at the image and 1 at the template.

    Returns:
        (n, c, h, w).
    """
    return torch.lerp(images, templates, alphas.to(images.dtype)[:, None, None, None])


def check_alphas(alphas: Sequence[float]) -> None:
    """Refuse alphas that are not ascending within [0, 1].

    Raises:
        DetectorInputError: saying what came.
    """
    ascending = all(low < high for low, high in pairwise(alphas))
    if len(alphas) == 0 or not ascending or not 0 <= alphas[0] <= alphas[-1] <= 1:  # which NaN is not
        raise DetectorInputError(f"alphas are ascending within [0, 1], got {list(alphas)}")


def loss_curves(
    classifier: Classifier,
    images: Tensor,
    templates: ClassTemplates,
    alphas: Sequence[float],
    *,
    rows_per_call: int = ROWS_PER_CALL,
) -> LossCurves:
    """Loss and margin of each image's predicted class along the paths to that class's templates.

    Costs one row for each image and one for each point strictly between image and template: the ends are known. The
    classifier is called on slices of `rows_per_call` rows that run across images, so the memory does not grow with
    images, templates or points. Differentiable with respect to the images.

    Args:
        classifier: see `Classifier`.
        images: (n, c, h, w) pixels in [0, 1], on the device of the templates; n may be 0.
        templates: the far ends.
        alphas: ascending within [0, 1].
        rows_per_call: bound on the rows of one call of the classifier.

    Returns:
        Curves of all n images, NaN where the predicted class has no template.

    Raises:
        DetectorInputError: if shapes, types or alphas are wrong.
    """
    check_alphas(alphas)
    logits = batched_logits(classifier, images, rows_per_call=rows_per_call)
    predicted = logits.argmax(dim=1)
    template_rows = templates.rows_of(predicted)
    covered = (template_rows >= 0).nonzero()[:, 0]
    grid = torch.tensor(alphas, dtype=logits.dtype, device=logits.device)
    inner = ((grid > 0) & (grid < 1)).nonzero()[:, 0]

    n_paths, n_inner = len(covered) * templates.n_templates, len(inner)
    losses_inside, margins_inside = _inner_points(
        classifier, images, templates, predicted, template_rows, covered, grid[inner], rows_per_call
    )
    at_image = cross_entropy_and_margin(logits[covered], predicted[covered])
    at_template = (templates.losses[template_rows[covered]], templates.margins[template_rows[covered]])
    shape = (len(covered), templates.n_templates, n_inner)
    spread = [
        _assemble(grid, image_end, inside.reshape(shape), template_end, covered, len(images))
        for image_end, inside, template_end in zip(at_image, (losses_inside, margins_inside), at_template, strict=True)
    ]
    return LossCurves(predicted, logits, grid, spread[0], spread[1], n_rows=len(images) + n_paths * n_inner)


def _inner_points(
    classifier: Classifier,
    images: Tensor,
    templates: ClassTemplates,
    predicted: Tensor,
    template_rows: Tensor,
    covered: Tensor,
    alphas: Tensor,
    rows_per_call: int,
) -> tuple[Tensor, Tensor]:
    """Losses and margins (n_covered * n_templates * n_inner,) of the rows between the ends, slice by slice."""
    n_templates, n_inner = templates.n_templates, len(alphas)
    far_ends = templates.images.flatten(0, 1)
    slices: list[tuple[Tensor, Tensor]] = []
    for rows in torch.arange(len(covered) * n_templates * n_inner, device=images.device).split(rows_per_call):
        image_index = covered[rows // (n_templates * n_inner)]
        far_index = template_rows[image_index] * n_templates + rows // max(n_inner, 1) % n_templates
        points = path_points(images[image_index], far_ends[far_index].to(images.dtype), alphas[rows % n_inner])
        slices.append(cross_entropy_and_margin(classifier(points), predicted[image_index]))
    if not slices:
        empty = alphas.new_zeros(0)
        return empty, empty
    losses, margins = zip(*slices, strict=True)
    return torch.cat(losses), torch.cat(margins)


def _assemble(
    grid: Tensor, image_end: Tensor, inside: Tensor, template_end: Tensor, covered: Tensor, n_images: int
) -> Tensor:
    """Join the known ends to the computed points, and NaN rows to the images without template."""
    n_templates = inside.shape[1]
    parts = [inside]
    if bool(grid[0] == 0):
        parts.insert(0, image_end[:, None, None].expand(-1, n_templates, 1))
    if bool(grid[-1] == 1):
        parts.append(template_end.to(inside.dtype)[:, :, None])
    whole = inside.new_full((n_images, n_templates, len(grid)), float("nan"))
    return whole.index_copy(0, covered, torch.cat([part.to(inside.dtype) for part in parts], dim=2))
