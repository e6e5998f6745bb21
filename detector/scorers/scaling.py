"""Making features of different kinds comparable."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError
from modeguard.detector.records import Leaf, check_shapes

ScalingName = Literal["none", "standard", "robust"]


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """What is subtracted from features, and what they are divided by.

    Attributes:
        center: (n_features,) float64.
        scale: (n_features,) float64, positive.
    """

    center: Annotated[Tensor, Leaf("n_features", torch.float64)]
    scale: Annotated[Tensor, Leaf("n_features", torch.float64)]

    def __post_init__(self) -> None:
        check_shapes(self)
        if not bool((self.scale > 0).all()):
            raise DetectorInputError("the scale of a feature is a positive number")

    def apply(self, features: Tensor) -> Tensor:
        """Features (n, n_features), scaled, in float64."""
        return (features.to(self.center.dtype) - self.center) / self.scale


def fit_scaling(features: Tensor, name: ScalingName) -> Scaling:
    """The scaling of reference features.

    Args:
        features: (n, n_features), finite.
        name: "standard" is mean and standard deviation, "robust" median and interquartile range, "none" leaves features
            as they are. A constant feature is divided by 1.

    Raises:
        DetectorInputError: for another name.
    """
    features = features.detach().to(torch.float64)
    if name == "none":
        center, scale = torch.zeros_like(features[0]), torch.ones_like(features[0])
    elif name == "standard":
        center, scale = features.mean(dim=0), features.std(dim=0, correction=0)
    elif name == "robust":
        quartiles = torch.quantile(features, features.new_tensor([0.25, 0.5, 0.75]), dim=0)
        center, scale = quartiles[1], quartiles[2] - quartiles[0]
    else:
        raise DetectorInputError(f"scaling is one of {get_args(ScalingName)}, got {name!r}")
    return Scaling(center, torch.where(_is_constant(features, center, scale), 1.0, scale))


def _is_constant(features: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    """(n_features,) bool: the scale is no more than the error of computing it, scikit-learn's rule for variances."""
    n, epsilon = len(features), torch.finfo(features.dtype).eps
    return scale.square() <= n * epsilon * scale.square() + (n * center * epsilon).square()
