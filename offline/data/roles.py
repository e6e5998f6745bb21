"""Which natural images play which part, so that nothing is measured on what it was fitted to.

The test images of a data set are dealt out by source image and before anything is attacked:

* calibration: natural images as they come, those that the classifier gets wrong included, because the threshold must
  hold for what a server meets;
* sources: correctly classified images that are attacked. One fold of them is for the test; the others take turns in
  choosing the detector (protocol "harder2021": 64/16/20, random_state 42, of which the 16 % go round). An image and its
  adversarial twins are never in different folds;
* extra: more correctly classified natural images among the references, so that both kinds are about as many.

Templates come from the training images, so they are in none of these.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeguard.detector import Leaf, ModeguardError

__all__ = ["Folds", "ImageRoles", "SplitConfig", "SplitError", "deal_folds", "deal_roles"]

_MOST_PARTS = 20


class SplitError(ModeguardError, ValueError):
    """A data set too small for what a recipe asks of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Folds:
    """What each source is for.

    Attributes:
        is_test: (n_sources,) bool, for measuring and nothing else.
        validation_parts: (n_parts, n_sources) bool. The detector is chosen by cross-validation over these parts: every
            source that is no test image is in one. The first is the protocol's validation fold.
    """

    is_test: Tensor
    validation_parts: Tensor


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """How many images play which part.

    Attributes:
        n_calibration: natural images for the threshold, as they come.
        n_sources: correctly classified images to attack, all folds together.
        n_extra: more correctly classified natural images among the references.
        n_template_pool: training images that templates are chosen from; 0 for all.
        validation_fraction: of the sources, about as many in each part that the detector is chosen by; the sources
            outside the test fold make from 2 to 20 such parts.
        test_fraction: of the sources, to measure it on.
        seed: of the folds and parts.
    """

    n_calibration: int
    n_sources: int
    n_extra: int = 0
    n_template_pool: int = 0
    validation_fraction: float = 0.16
    test_fraction: float = 0.20
    seed: int = 42

    def __post_init__(self) -> None:
        if min(self.n_calibration, self.n_sources) < 1 or min(self.n_extra, self.n_template_pool) < 0:
            raise SplitError(
                "n_calibration and n_sources are at least 1, n_extra and n_template_pool at least 0, got "
                f"{self.n_calibration}, {self.n_sources}, {self.n_extra} and {self.n_template_pool}"
            )
        if not 0 <= self.seed < 2**32:
            raise SplitError(f"the seed of the folds is within 0..2**32 - 1, got {self.seed}")
        fractions = (self.validation_fraction, self.test_fraction)
        if min(fractions) <= 0 or sum(fractions) >= 1:
            raise SplitError(
                f"validation_fraction and test_fraction are positive and leave something to fit, got {fractions}"
            )
        outside = 1 - self.test_fraction
        if not outside / _MOST_PARTS <= self.validation_fraction <= outside / 2:
            raise SplitError(
                f"the sources outside the test fold make 2 to {_MOST_PARTS} parts, so validation_fraction lies within "
                f"{outside / _MOST_PARTS:.3g} and {outside / 2:.3g} here, got {self.validation_fraction}"
            )
        deal_folds(self)  # so that sources that cannot be split are refused before anything is computed


@dataclass(frozen=True, slots=True, eq=False)
class ImageRoles:
    """Indices into the test images of a data set; no image has two roles.

    Attributes:
        calibration: (n_calibration,) int64.
        sources: (n_sources,) int64.
        extra: (n_extra,) int64.
    """

    calibration: Annotated[Tensor, Leaf("n_calibration", torch.int64)]
    sources: Annotated[Tensor, Leaf("n_sources", torch.int64)]
    extra: Annotated[Tensor, Leaf("n_extra", torch.int64)]


def deal_roles(config: SplitConfig, is_correct: Tensor, *, seed: int) -> ImageRoles:
    """Deal out the test images.

    Args:
        config: how many for what.
        is_correct: (n,) bool, whether the classifier is right about each test image.
        seed: of the order in which images are dealt.

    Raises:
        SplitError: saying how many images there are for how many wanted.
    """
    order = torch.randperm(len(is_correct), generator=torch.Generator().manual_seed(seed))
    calibration, rest = order[: config.n_calibration], order[config.n_calibration :]
    correct = rest[is_correct[rest]]
    wanted = config.n_sources + config.n_extra
    if len(calibration) < config.n_calibration or len(correct) < wanted:
        raise SplitError(
            f"{config.n_calibration} calibration images and {wanted} correctly classified ones (n_sources + n_extra) "
            f"are asked for, but of {len(is_correct)} test images {len(correct)} correctly classified ones are left "
            "after calibration; lower the numbers or add images"
        )
    return ImageRoles(calibration, correct[: config.n_sources], correct[config.n_sources : wanted])


def deal_folds(config: SplitConfig) -> Folds:
    """Split off the test images, and deal the others into parts.

    Which images are attacked does not depend on it, so other folds need no new attacks.

    Raises:
        SplitError: if there are too few sources.
    """
    n_sources = config.n_sources
    rest, test = _shuffled_split(np.arange(n_sources), config.test_fraction, config.seed)
    of_rest = config.validation_fraction / (1 - config.test_fraction)
    fit, validation = _shuffled_split(rest, of_rest, config.seed)
    if len(fit) < 2:
        raise SplitError(
            f"{n_sources} sources cannot be split into test fold and parts that leave something to fit; raise n_sources"
        )
    parts = [validation, *np.array_split(fit, round(1 / of_rest) - 1)]
    return Folds(_mask(test, n_sources), torch.stack([_mask(part, n_sources) for part in parts]))


def _shuffled_split(rows: NDArray[np.intp], fraction: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows outside and inside a random part, as scikit-learn's `train_test_split` deals them in the protocol."""
    n_inside = math.ceil(fraction * len(rows))
    order = np.random.RandomState(seed).permutation(len(rows))
    return rows[order[n_inside:]], rows[order[:n_inside]]


def _mask(rows: NDArray[np.intp], n: int) -> Tensor:
    is_in = torch.zeros(n, dtype=torch.bool)
    is_in[torch.from_numpy(rows)] = True
    return is_in
