"""Under how much noise the classifier keeps its answer.

Bell, "Neighborhoods of Adversarial Examples" (2023), part I: gamma-persistence (definition 4.2), by bracketing (section
7, algorithm 1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError
from modeguard.detector.questions.noise import LARGEST_SIGMA, check_seed, gaussian_draws, noisy_answer
from modeguard.detector.questions.question import AtImage, Question
from modeguard.detector.records import Leaf
from modeguard.detector.rows import Classifier
from modeguard.detector.templates import ClassTemplates


@dataclass(frozen=True, slots=True, eq=False)
class PersistenceAnswer:
    """How persistent the predicted class of n images is.

    Attributes:
        sigma: (n,) standard deviations; infinity where the class is kept at `Persistence.max_sigma`, 0 where it is
            lost at once.
    """

    sigma: Annotated[Tensor, Leaf("n", torch.float32)]


@dataclass(frozen=True, slots=True)
class Persistence(Question[PersistenceAnswer]):
    """Largest noise under which each image keeps its class with probability gamma, Bell algorithm 1.

    All images are bracketed together; those that are done leave the batch.

    Attributes:
        gamma: probability of keeping the class, within (0, 1); the source takes 0.7.
        max_steps: bisections at the most.
        n_draws: draws of noise, the same at every step.
        seed: of the draws.
        precision: an image is done when its agreement is this near to gamma.
        first_bracket: where the search begins; widened by halving and doubling until it holds the answer (RANGEFINDER).
        max_sigma: where doubling stops, by default at noise that leaves nothing of an image with pixels in [0, 1];
            halving stops at the square of its inverse.
    """

    answer_type: ClassVar[type] = PersistenceAnswer

    gamma: float = 0.7
    max_steps: int = 6
    n_draws: int = 6
    seed: int = 0
    precision: float = 0.005
    first_bracket: tuple[float, float] = (0.05, 0.2)
    max_sigma: float = 10.0

    def __post_init__(self) -> None:
        low, high = self.first_bracket
        is_within = 0 < low < high < self.max_sigma <= LARGEST_SIGMA
        if not 0 < self.gamma < 1 or min(self.max_steps, self.n_draws) < 1 or not is_within:
            raise DetectorInputError(
                "gamma is within (0, 1), max_steps and n_draws are at least 1, and 0 < low < high < max_sigma <= "
                f"{LARGEST_SIGMA:g}, got {self.gamma}, {self.max_steps}, {self.n_draws}, {self.first_bracket} and "
                f"{self.max_sigma}"
            )
        check_seed(self.seed)
        if low < self.min_sigma:  # widening would take no end of steps from there
            raise DetectorInputError(
                f"the first bracket begins at {self.min_sigma:g}, the square of the inverse of max_sigma, or above, "
                f"got {low}"
            )

    @property
    def min_sigma(self) -> float:
        """Where halving stops."""
        return self.max_sigma**-2

    def n_rows(self, n_templates: int) -> int:
        """The most that bracketing takes if its first bracket holds the answer; widening it costs more."""
        return self.n_draws * (2 + self.max_steps)

    def ask(
        self,
        classifier: Classifier,
        images: Tensor,
        at_image: AtImage,
        templates: ClassTemplates,
    ) -> PersistenceAnswer:
        """See `Question.ask`."""
        predicted = at_image.predicted
        draws = gaussian_draws(classifier.input_shape, self.n_draws, self.seed).to(images)

        def agreement(rows: Tensor, sigmas: Tensor) -> Tensor:
            return noisy_answer(classifier, images[rows], predicted[rows], draws, sigmas[rows])[0]

        low, high = (images.new_full((len(images),), end) for end in self.first_bracket)
        is_lost = _widen(low, agreement, lambda kept: kept < self.gamma, factor=0.5, limit=self.min_sigma)
        is_kept = _widen(high, agreement, lambda kept: kept > self.gamma, factor=2.0, limit=self.max_sigma)

        sigma = (low + high) / 2
        active = (~is_lost & ~is_kept).nonzero()[:, 0]
        # sigma, low and high have every image; `active` are the places of those still searched for
        for _ in range(self.max_steps):
            if len(active) == 0:
                break
            sigma[active] = (low[active] + high[active]) / 2
            kept = agreement(active, sigma)
            low[active] = torch.where(kept > self.gamma, sigma[active], low[active])
            high[active] = torch.where(kept > self.gamma, high[active], sigma[active])
            active = active[(kept - self.gamma).abs() >= self.precision]
        sigma[is_lost] = 0.0
        sigma[is_kept] = torch.inf
        return PersistenceAnswer(sigma)


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
