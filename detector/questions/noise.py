"""How stable a prediction is under Gaussian noise.

Bell, "Neighborhoods of Adversarial Examples" (2023), part I: (gamma, sigma)-stability (definition 4.1) and
gamma-persistence (definition 4.2), by Monte Carlo (equation 7) and by bracketing (section 7, algorithm 1).

The noise is drawn once and shared by all images, so that an answer does not depend on the batch it came in. Noisy
pixels are not clipped to [0, 1], as in the source.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError
from modeguard.detector.questions.curves import cross_entropy_and_margin
from modeguard.detector.rows import ROWS_PER_CALL, Classifier, batched_logits


@dataclass(frozen=True, slots=True, eq=False)
class NoiseResponse:
    """What the classifier says of n noisy images.

    Attributes:
        sigmas: (n_sigmas,) standard deviations of the noise on the [0, 1] pixel scale.
        agreement: (n, n_sigmas) fraction of the draws that keep the predicted class, in [0, 1].
        margins: (n, n_sigmas) mean logit margin of the predicted class over the draws.
    """

    sigmas: Tensor
    agreement: Tensor
    margins: Tensor


def gaussian_draws(input_shape: tuple[int, int, int], n_draws: int, seed: int) -> Tensor:
    """Standard normal noise (n_draws, c, h, w), the same on every device and in every batch."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n_draws, *input_shape), generator=generator)


def noise_response(
    classifier: Classifier,
    images: Tensor,
    predicted: Tensor,
    draws: Tensor,
    sigmas: Sequence[float],
    *,
    rows_per_call: int = ROWS_PER_CALL,
) -> NoiseResponse:
    """Agreement and margins of the predicted class at several noise levels; costs n * n_sigmas * n_draws rows.

    Differentiable with respect to the images (the margins are).

    Args:
        classifier: see `Classifier`.
        images: (n, c, h, w) pixels in [0, 1].
        predicted: (n,) int64, the class at each image itself.
        draws: (n_draws, c, h, w) standard normal noise.
        sigmas: noise levels, each positive.
        rows_per_call: bound on the rows of one call.
    """
    levels = [
        _at_sigma(classifier, images, predicted, draws, images.new_full((len(images),), sigma), rows_per_call)
        for sigma in sigmas
    ]
    agreement, margins = (torch.stack(values, dim=1) for values in zip(*levels, strict=True))
    return NoiseResponse(images.new_tensor(sigmas), agreement, margins)


def stability(
    classifier: Classifier,
    images: Tensor,
    sigma: float,
    draws: Tensor,
    *,
    rows_per_call: int = ROWS_PER_CALL,
) -> Tensor:
    """Monte Carlo estimate of P[class(x + sigma z) = class(x)], Bell equation 7.

    An image is (gamma, sigma)-stable when this is at least gamma (definition 4.1).

    Args:
        classifier: see `Classifier`.
        images: (n, c, h, w).
        sigma: standard deviation of the noise, positive.
        draws: (n_draws, c, h, w) standard normal noise.
        rows_per_call: bound on the rows of one call.

    Returns:
        (n,) in [0, 1].
    """
    predicted = batched_logits(classifier, images, rows_per_call=rows_per_call).argmax(dim=1)
    response = noise_response(classifier, images, predicted, draws, [sigma], rows_per_call=rows_per_call)
    return response.agreement[:, 0]


def persistence(
    classifier: Classifier,
    images: Tensor,
    draws: Tensor,
    *,
    gamma: float = 0.7,
    precision: float = 0.005,
    max_steps: int = 30,
    sigma_range: tuple[float, float] = (0.5, 1.5),
    max_sigma: float = 1e3,
    rows_per_call: int = ROWS_PER_CALL,
) -> Tensor:
    """Largest noise under which each image keeps its class with probability gamma, Bell algorithm 1.

    All images are bracketed together; those that are done leave the batch.

    Args:
        classifier: see `Classifier`.
        images: (n, c, h, w).
        draws: (n_draws, c, h, w) standard normal noise, the same at every step.
        gamma: probability of keeping the class, within (0, 1); the source takes 0.7.
        precision: an image is done when its agreement is this near to gamma.
        max_steps: bisections at the most.
        sigma_range: first bracket; widened by halving and doubling until it holds the answer (RANGEFINDER).
        max_sigma: where doubling stops; halving stops at the square of its inverse.
        rows_per_call: bound on the rows of one call.

    Returns:
        (n,) standard deviations; infinity where the class is kept at `max_sigma`, 0 where it is lost at once.

    Raises:
        DetectorInputError: if gamma or the range make no sense.
    """
    low_start, high_start = sigma_range
    if not 0 < gamma < 1 or not 0 < low_start < high_start < max_sigma:
        raise DetectorInputError(
            f"gamma is within (0, 1) and 0 < low < high < max_sigma, got {gamma}, {sigma_range} and {max_sigma}"
        )
    predicted = batched_logits(classifier, images, rows_per_call=rows_per_call).argmax(dim=1)

    def agreement(rows: Tensor, sigmas: Tensor) -> Tensor:
        return _at_sigma(classifier, images[rows], predicted[rows], draws, sigmas[rows], rows_per_call)[0]

    low = images.new_full((len(images),), low_start)
    high = images.new_full((len(images),), high_start)
    is_lost = _widen(low, agreement, lambda kept: kept < gamma, factor=0.5, limit=max_sigma**-2)
    is_kept = _widen(high, agreement, lambda kept: kept > gamma, factor=2.0, limit=max_sigma)

    sigma = (low + high) / 2
    active = (~is_lost & ~is_kept).nonzero()[:, 0]
    for _ in range(max_steps):
        if len(active) == 0:
            break
        sigma[active] = (low[active] + high[active]) / 2
        kept = agreement(active, sigma)
        low[active] = torch.where(kept > gamma, sigma[active], low[active])
        high[active] = torch.where(kept > gamma, high[active], sigma[active])
        active = active[(kept - gamma).abs() >= precision]
    sigma[is_lost] = 0.0
    sigma[is_kept] = torch.inf
    return sigma


def _widen(
    ends: Tensor,
    agreement: Callable[[Tensor, Tensor], Tensor],
    is_outside: Callable[[Tensor], Tensor],
    *,
    factor: float,
    limit: float,
) -> Tensor:
    """Move one end of every bracket, in place, until it holds the answer; (n,) bool where the limit came first."""
    is_beyond = torch.zeros_like(ends, dtype=torch.bool)
    active = torch.arange(len(ends), device=ends.device)
    while len(active):
        active = active[is_outside(agreement(active, ends))]
        moved = ends[active] * factor
        is_past = moved < limit if factor < 1 else moved > limit
        is_beyond[active[is_past]] = True
        active = active[~is_past]
        ends[active] *= factor
    return is_beyond


def _at_sigma(
    classifier: Classifier,
    images: Tensor,
    predicted: Tensor,
    draws: Tensor,
    sigmas: Tensor,
    rows_per_call: int,
) -> tuple[Tensor, Tensor]:
    """Agreement and mean margin (n,) of images each at its own noise level (n,)."""
    n_draws = len(draws)
    draws = draws.to(images)
    is_same, margins = [], []
    for rows in torch.arange(len(images) * n_draws, device=images.device).split(rows_per_call):
        image_index = rows // n_draws
        noise = sigmas[image_index, None, None, None] * draws[rows % n_draws]
        logits = classifier(images[image_index] + noise)
        is_same.append(logits.argmax(dim=1) == predicted[image_index])
        margins.append(cross_entropy_and_margin(logits, predicted[image_index])[1])
    if not is_same:
        return images.new_zeros(0), images.new_zeros(0)
    agreement = torch.cat(is_same).to(images.dtype).reshape(-1, n_draws).mean(dim=1)
    return agreement, torch.cat(margins).reshape(-1, n_draws).mean(dim=1)
