"""What a scorer is, and what it is fitted on."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

import torch
from torch import Tensor

from modeguard.detector.records import Leaf, check_shapes


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """Images of known kind that a scorer is fitted on.

    Attributes:
        features: (n, n_features), finite.
        is_adversarial: (n,) bool.
        predicted: (n,) int64, the classifier's class.
        source: (n,) int64, which natural image each is, or was made from: an image and its adversarial versions share
            one number, so that a scorer that holds some out holds them out together.
    """

    features: Annotated[Tensor, Leaf("n n_features", torch.float64)]
    is_adversarial: Annotated[Tensor, Leaf("n", torch.bool)]
    predicted: Annotated[Tensor, Leaf("n", torch.int64)]
    source: Annotated[Tensor, Leaf("n", torch.int64)]

    def __post_init__(self) -> None:
        check_shapes(self)


class Scorer(Protocol):
    """From features to a score; a frozen record of tensors, and of the options that it was fitted with."""

    @property
    def is_differentiable(self) -> bool:
        """Whether an attack can follow the score's gradient."""
        ...

    @property
    def decision(self) -> float:
        """The score above which the scorer by itself, uncalibrated, would say adversarial."""
        ...

    def score(self, features: Tensor) -> Tensor:
        """Any real number, higher is more adversarial; only p-values of different scorers may be compared.

        Args:
            features: (n, n_features), finite.

        Returns:
            (n,) float64. No image's score depends on another image.

        Raises:
            DetectorInputError: if the number of features is another.
        """
        ...


class ScorerOptions(Protocol):
    """The choices of one kind of scorer; a frozen record."""

    kind: ClassVar[str]
    """Its name in `SCORERS`."""

    def fit(self, references: References) -> Scorer:
        """A scorer fitted on references.

        Raises:
            DetectorInputError: if they will not do, saying why.
        """
        ...
