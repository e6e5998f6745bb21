"""Which training images an epoch visits: InfoBatch, unbiased data pruning (Qin et al., ICLR 2024, section 2.2).

Images that the network has already learned add little to its gradient. Of those whose last loss is below the mean a
share is left out at random, and the ones that stay weigh as much more, so the expected gradient of an epoch is that of
all images. The last scheduled epochs, or the last one of a short training, visit every image (the paper's annealing).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Visit", "choose_visit"]

ANNEALED_FRACTION = 0.125
"""Of all epochs, the last ones, which leave nothing out; the paper's value."""


@dataclass(frozen=True, slots=True, eq=False)
class Visit:
    """The images of one epoch in the order in which they are met.

    Attributes:
        rows: (n,) int64, positions in the training set.
        weights: (n,) float32, what the loss of each counts; 1 where nothing was left out.
    """

    rows: Tensor
    weights: Tensor


def choose_visit(last_losses: Tensor, prune_ratio: float, end: float, generator: torch.Generator) -> Visit:
    """Draw the images of an epoch.

    Args:
        last_losses: (n,) float32, the loss of each image when it was last met; infinite for one never met.
        prune_ratio: share of the images below the mean loss that is left out, in [0, 1).
        end: fraction of the training that is over when the epoch ends, in (0, 1].
        generator: on the device of the losses.
    """
    order = torch.randperm(len(last_losses), generator=generator, device=last_losses.device)
    weights = torch.ones_like(last_losses)
    if prune_ratio == 0 or end > 1 - ANNEALED_FRACTION:
        return Visit(order, weights)
    is_easy = last_losses < last_losses.mean()
    draws = torch.rand(len(last_losses), generator=generator, device=last_losses.device)
    weights[is_easy] = 1 / (1 - prune_ratio)
    kept = order[~(is_easy & (draws < prune_ratio))[order]]
    return Visit(kept, weights[kept]) if len(kept) > 1 else Visit(order, torch.ones_like(last_losses))
