"""Loss curves: the classifier's loss on the straight line from an image to its class templates.

"Input Space Mode Connectivity in Deep Neural Networks", section 3.1 equation 3 (the path) and section
4.2.1 (the curve as a feature).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError
from modeguard.detector.losses import cross_entropy_and_margin
from modeguard.detector.paths import check_alphas, evenly_spaced, straight_path
from modeguard.detector.questions.question import AtImage, Question
from modeguard.detector.records import Leaf
from modeguard.detector.rows import Classifier
from modeguard.detector.templates import ClassTemplates


@dataclass(frozen=True, slots=True, eq=False)
class LossCurves:
    """What the classifier says along the paths from n images to the templates of their predicted classes.

    Attributes:
        losses: (n, n_templates, n_points) cross-entropy of the predicted class along each path; NaN where the class
            has no template.
        margins: (n, n_templates, n_points) logit of the predicted class minus the largest other, from the same rows.
    """

    losses: Annotated[Tensor, Leaf("n n_templates n_points", torch.float32)]
    margins: Annotated[Tensor, Leaf("n n_templates n_points", torch.float32)]


@dataclass(frozen=True, slots=True)
class Curves(Question[LossCurves]):
    """Loss and margin of each image's predicted class along the straight paths to that class's templates.

    Costs a row for each point strictly between image and template: the ends are known. Differentiable with respect to
    the images.

    Attributes:
        alphas: points of the path, ascending within [0, 1], 0 at the image and 1 at the template.
    """

    answer_type: ClassVar[type] = LossCurves

    alphas: tuple[float, ...] = evenly_spaced(8)

    def __post_init__(self) -> None:
        check_alphas(self.alphas)

    def n_rows(self, n_templates: int) -> int:
        """A row for each inner point of each path; none for an image whose class has no template."""
        return n_templates * len(self._inner)

    def ask(self, classifier: Classifier, images: Tensor, at_image: AtImage, templates: ClassTemplates) -> LossCurves:
        """See `Question.ask`."""
        predicted = at_image.predicted
        template_rows = templates.rows_of(predicted)
        covered = (template_rows >= 0).nonzero()[:, 0]
        own, far = predicted[covered], template_rows[covered]
        inner = torch.tensor(self._inner, dtype=at_image.logits.dtype, device=images.device)

        points = straight_path(images[covered], templates.images[far], inner)
        shape = points.shape[:3]
        # every point is asked about the class that was predicted at its image
        inside = cross_entropy_and_margin(classifier(points.flatten(0, 2)), own.repeat_interleave(shape[1] * shape[2]))
        at_start = cross_entropy_and_margin(at_image.logits[covered], own)
        at_end = (templates.losses[far], templates.margins[far])
        losses, margins = (
            self._along(start, middle.reshape(shape), end, covered, len(images))
            for start, middle, end in zip(at_start, inside, at_end, strict=True)
        )
        return LossCurves(losses, margins)

    @property
    def _inner(self) -> tuple[float, ...]:
        """Alphas strictly between the ends; as they are, since in float32 one very near an end would be that end."""
        return tuple(alpha for alpha in self.alphas if 0 < alpha < 1)

    def _along(self, start: Tensor, inside: Tensor, end: Tensor, covered: Tensor, n_images: int) -> Tensor:
        """Join the known ends (n_covered,) and (n_covered, n_templates) to the points, and NaN for other images."""
        parts = [inside]
        if self.alphas[0] == 0:
            parts.insert(0, start[:, None, None].expand(-1, inside.shape[1], 1))
        if self.alphas[-1] == 1:
            parts.append(end[:, :, None])
        whole = start.new_full((n_images, inside.shape[1], len(self.alphas)), float("nan"))
        return whole.index_copy(0, covered, torch.cat([part.to(whole.dtype) for part in parts], dim=2))

    def joined(self, other: "Curves") -> "Curves":
        """The curves at the points of both."""
        return Curves(tuple(sorted({*self.alphas, *other.alphas})))

    def selected(self, answer: LossCurves, question: "Curves", n_templates: int) -> LossCurves:
        """The same curves on fewer points and templates.

        Raises:
            DetectorInputError: if an alpha or so many templates were not asked for.
        """
        points = _places(self.alphas, question.alphas)
        if points is None or not 1 <= n_templates <= answer.losses.shape[1]:
            raise DetectorInputError(
                f"curves at alphas {list(self.alphas)} to {answer.losses.shape[1]} templates hold no selection of "
                f"alphas {list(question.alphas)} and {n_templates} templates"
            )
        return LossCurves(answer.losses[:, :n_templates, points], answer.margins[:, :n_templates, points])


def _places(alphas: Sequence[float], wanted: Sequence[float]) -> list[int] | None:
    """Where each wanted alpha is, None if one is missing; alphas that went through JSON or float32 are still found."""
    nearest = [_nearest(alphas, alpha) for alpha in wanted]
    is_there = all(abs(alphas[k] - alpha) <= 1e-6 for k, alpha in zip(nearest, wanted, strict=True))
    return nearest if is_there else None


def _nearest(alphas: Sequence[float], wanted: float) -> int:
    above = bisect_left(alphas, wanted)
    return min(range(max(0, above - 1), min(above + 1, len(alphas))), key=lambda k: abs(alphas[k] - wanted))


def barrier_heights(curves: LossCurves) -> Tensor:
    """Highest loss on each path, the paper's section 4.2 and Figure 6.

    Returns:
        (n, n_templates).
    """
    return curves.losses.amax(dim=2)


def barrier_gaps(curves: LossCurves) -> Tensor:
    """Barrier height minus the higher of the two ends, the paper's Figure 6.

    Returns:
        (n, n_templates), at least 0 when both ends are among the alphas.
    """
    return barrier_heights(curves) - torch.maximum(curves.losses[..., 0], curves.losses[..., -1])
