"""What the classifier said of a set of images, kept as tensors so that it is asked once and looked at often."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from detector import LossCurves, Observation
from detector.stability import NoiseResponse

_NOISE_PREFIX = "noise_"


def to_tensors(observation: Observation) -> dict[str, Tensor]:
    """An observation by name, on the CPU."""
    curves = observation.curves
    tensors = {
        "predicted": curves.predicted,
        "logits": curves.logits,
        "alphas": curves.alphas,
        "losses": curves.losses,
        "margins": curves.margins,
        "n_rows": torch.tensor(curves.n_rows),
    }
    if observation.noise is not None:
        tensors |= {
            "noise_sigmas": observation.noise.sigmas,
            "noise_agreement": observation.noise.agreement,
            "noise_margins": observation.noise.margins,
            "noise_n_rows": torch.tensor(observation.noise.n_rows),
        }
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def from_tensors(tensors: dict[str, Tensor]) -> Observation:
    """The inverse of `to_tensors`."""
    curves = LossCurves(
        predicted=tensors["predicted"],
        logits=tensors["logits"],
        alphas=tensors["alphas"],
        losses=tensors["losses"],
        margins=tensors["margins"],
        n_rows=int(tensors["n_rows"]),
    )
    if "noise_sigmas" not in tensors:
        return Observation(curves, None)
    noise = NoiseResponse(
        sigmas=tensors["noise_sigmas"],
        agreement=tensors["noise_agreement"],
        margins=tensors["noise_margins"],
        n_rows=int(tensors["noise_n_rows"]),
    )
    return Observation(curves, noise)


def pick(observation: Observation, rows: Tensor) -> Observation:
    """The observation of some of its images.

    Args:
        observation: of n images.
        rows: indices (m,) or mask (n,) bool.
    """
    curves = observation.curves
    picked = replace(
        curves,
        predicted=curves.predicted[rows],
        logits=curves.logits[rows],
        losses=curves.losses[rows],
        margins=curves.margins[rows],
    )
    noise = observation.noise
    if noise is not None:
        noise = replace(noise, agreement=noise.agreement[rows], margins=noise.margins[rows])
    return Observation(picked, noise)


def join(observations: Sequence[Observation]) -> Observation:
    """Observations of several sets of images, made alike, as one."""
    parts = [to_tensors(observation) for observation in observations]
    shared = {"alphas", f"{_NOISE_PREFIX}sigmas"}
    joined: dict[str, Tensor] = {}
    for name, first in parts[0].items():
        if name in shared:
            joined[name] = first
        elif first.ndim == 0:
            joined[name] = torch.stack([part[name] for part in parts]).sum()
        else:
            joined[name] = torch.cat([part[name] for part in parts])
    return from_tensors(joined)
