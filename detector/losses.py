"""What logits say of one class: its loss and its margin."""

import torch
from torch import Tensor

from modeguard.detector.rows import at_least_float32


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
