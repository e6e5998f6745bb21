"""Class templates: known good images of each class, the far ends of the paths."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError


@dataclass(frozen=True, slots=True, eq=False)
class ClassTemplates:
    """Templates of the classes that have some; a class may have none.

    Losses and margins are those of the classifier at the templates themselves, so that the far end of a path is
    never computed again.

    Attributes:
        classes: (m,) int64, ascending, the classes that have templates.
        images: (m, n_templates, c, h, w) float32 pixels in [0, 1], best template first.
        losses: (m, n_templates) cross-entropy of the template's own class.
        margins: (m, n_templates) logit of the template's own class minus the largest other logit.
    """

    classes: Tensor
    images: Tensor
    losses: Tensor
    margins: Tensor

    def __post_init__(self) -> None:
        m = len(self.classes)
        ends = tuple(self.images.shape[:2])
        if self.images.ndim != 5 or ends[0] != m or self.losses.shape != ends or self.margins.shape != ends:
            raise DetectorInputError(
                f"templates of {m} classes need images (m, n_templates, c, h, w) and losses and margins "
                f"(m, n_templates), got {tuple(self.images.shape)}, {tuple(self.losses.shape)} and "
                f"{tuple(self.margins.shape)}"
            )
        if m == 0 or ends[1] == 0:
            raise DetectorInputError("a detector needs at least one class with at least one template")
        is_class = self.classes.dtype == torch.int64 and bool((self.classes >= 0).all())
        if not is_class or bool((self.classes.diff() <= 0).any()):
            raise DetectorInputError("the classes of templates are int64, from 0, unique and ascending")

    @property
    def n_templates(self) -> int:
        """Templates a class."""
        return int(self.images.shape[1])

    def rows_of(self, predicted: Tensor) -> Tensor:
        """Row of each predicted class, -1 for a class that has no template.

        Args:
            predicted: (n,) int64.

        Returns:
            (n,) int64, each in [-1, m).
        """
        rows = torch.searchsorted(self.classes, predicted).clamp(max=len(self.classes) - 1)
        return torch.where(self.classes[rows] == predicted, rows, -1)

    def first(self, n_templates: int) -> "ClassTemplates":
        """The best `n_templates` of each class.

        Raises:
            DetectorInputError: if there are fewer.
        """
        if not 1 <= n_templates <= self.n_templates:
            raise DetectorInputError(f"n_templates is in 1..{self.n_templates} here, got {n_templates}")
        return replace(
            self,
            images=self.images[:, :n_templates],
            losses=self.losses[:, :n_templates],
            margins=self.margins[:, :n_templates],
        )

    def to(self, device: torch.device | str) -> "ClassTemplates":
        """The same templates on another device."""
        return ClassTemplates(*(t.to(device) for t in (self.classes, self.images, self.losses, self.margins)))
