"""What an attack is, and what one is handed."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from modeguard.offline.attacks.goals import Goal

Norm = Literal["linf", "l2"]


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Random numbers for the images of a slice that are attacked.

    They are drawn for the whole slice, so an image's do not depend on which others of it meet the goal already.

    Attributes:
        generator: where they come from; on any device.
        n_slice: images of the slice.
        rows: (n,) int64, places of the attacked ones in it, on the images' device.
    """

    generator: torch.Generator
    n_slice: int
    rows: Tensor

    def uniform(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Numbers in [0, 1), of this shape for each attacked image: (n, *shape)."""
        drawn = torch.rand((self.n_slice, *shape), generator=self.generator, device=self.generator.device, dtype=dtype)
        return drawn.to(self.rows.device)[self.rows]


class Attack(Protocol):
    """A way to search for adversarial images: a frozen record of parameters with one method."""

    norm: ClassVar[Norm]

    def perturb(self, goal: Goal, images: Tensor, draws: Draws) -> Tensor:
        """Look for images near `images` that meet the goal.

        Called by `run_attack`, which checks what it is given, leaves out images that meet the goal as they are and
        bounds the batch, so that no attack does any of it.

        Args:
            goal: what is wanted of these images.
            images: (n, c, h, w), floating point, [0, 1], detached, not to be written to; n may be 0.
            draws: where an attack that needs random numbers gets them.

        Returns:
            (n, c, h, w) in [0, 1], detached, in the images' type. Where the attack fails, see its own documentation.

        Raises:
            AttackError: if the attack's parameters do not fit the goal.
        """
        ...
