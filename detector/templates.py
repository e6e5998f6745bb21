"""Class templates: known good images of each class, the far ends of the paths."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError
from modeguard.detector.records import Leaf, check_shapes


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

    classes: Annotated[Tensor, Leaf("m", torch.int64)]
    images: Annotated[Tensor, Leaf("m n_templates c h w", torch.float32)]
    losses: Annotated[Tensor, Leaf("m n_templates", torch.float32)]
    margins: Annotated[Tensor, Leaf("m n_templates", torch.float32)]

    def __post_init__(self) -> None:
        check_shapes(self)
        if 0 in self.losses.shape:
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
