"""Split-conformal p-values: how unusual a score is among natural images.

For a natural image exchangeable with the m calibration images, P(p-value <= a) <= a for every a (Vovk, Gammerman and
Shafer, "Algorithmic Learning in a Random World", 2005, proposition 2.4; Angelopoulos and Bates, arXiv:2107.07511,
section 1.1).
"""

import math

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError


def conformal_p_values(scores: Tensor, calibration_scores: Tensor) -> Tensor:
    """Fraction of natural scores at least as extreme as each score, the image itself counted in.

    Args:
        scores: (n,), higher is more adversarial.
        calibration_scores: (m,), held-out natural images, ascending.

    Returns:
        (n,) in [1 / (m + 1), 1], the dtype of `calibration_scores`.

    Raises:
        DetectorInputError: if m is 0.
    """
    m = len(calibration_scores)
    if m == 0:
        raise DetectorInputError("p-values need at least one natural calibration score, got none")
    n_below = torch.searchsorted(calibration_scores, scores.to(calibration_scores.dtype).contiguous(), right=False)
    return (m - n_below + 1).to(calibration_scores.dtype) / (m + 1)


def smallest_calibration_set(target_fpr: float) -> int:
    """Fewest natural images with which any image can be called adversarial at `target_fpr`.

    The smallest p-value of m images is 1 / (m + 1).

    Raises:
        DetectorInputError: if `target_fpr` is not within (0, 1).
    """
    if not 0 < target_fpr < 1:
        raise DetectorInputError(f"target_fpr is a rate within (0, 1), got {target_fpr}")
    return math.ceil(1 / target_fpr - 1 - 1e-9)
