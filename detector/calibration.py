"""From scores to verdicts: who is judged, how unusual a score is among natural images, and who is flagged.

The p-values are split-conformal: for a natural image exchangeable with the m calibration images, P(p-value <= a) <= a
for every a (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, proposition 2.4; Angelopoulos
and Bates, arXiv:2107.07511, section 1.1).
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


def is_judged(features: Tensor) -> Tensor:
    """Who is judged at all: images whose features (n, n_features) are all finite; (n,) bool.

    The others are abstained on, and are neither references nor calibration images.
    """
    return features.isfinite().all(dim=1)


def is_flagged(p_values: Tensor, target_fpr: float) -> Tensor:
    """Who is flagged: p-values (n,) of at most the target FPR; False for NaN."""
    return p_values <= target_fpr


def threshold(calibration_scores: Tensor, target_fpr: float) -> float:
    """The score above which an image is flagged: where the p-value reaches the target FPR.

    With m calibration scores that is the ceil((m + 1)(1 - target_fpr))-th in ascending order (Angelopoulos and Bates,
    arXiv:2107.07511, section 1).

    Args:
        calibration_scores: (m,), ascending, at least `smallest_calibration_set(target_fpr)` of them.
        target_fpr: within (0, 1).
    """
    m = len(calibration_scores)
    rank = math.ceil((m + 1) * (1 - target_fpr) - 1e-9)
    return float(calibration_scores[min(rank, m) - 1])


def smallest_calibration_set(target_fpr: float) -> int:
    """Fewest natural images with which any image can be flagged at `target_fpr`.

    The smallest p-value of m images is 1 / (m + 1).

    Raises:
        DetectorInputError: if `target_fpr` is not within (0, 1).
    """
    if not 0 < target_fpr < 1 or math.isinf(1 / target_fpr):
        raise DetectorInputError(f"target_fpr is a rate within (0, 1), got {target_fpr}")
    return math.ceil(1 / target_fpr - 1 - 1e-9)
