"""What the classifier said of a set of images, kept as tensors so that it is asked once and looked at often."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from modeguard.detector import LossCurves, Observation
from modeguard.detector.questions.noise import NoiseResponse


def to_tensors(observation: Observation) -> dict[str, Tensor]:
    """An observation by name, on the CPU."""
    curves = observation.curves
    tensors = {
        "predicted": curves.predicted,
        "logits": curves.logits,
        "alphas": curves.alphas,
        "losses": curves.losses,
        "margins": curves.margins,
        "curves_n_rows": torch.tensor(curves.n_rows),
        "n_rows": torch.tensor(observation.n_rows),
    }
    if observation.persistence is not None:
        tensors["persistence"] = observation.persistence
    if observation.noise is not None:
        tensors |= {
            "noise_sigmas": observation.noise.sigmas,
            "noise_agreement": observation.noise.agreement,
            "noise_margins": observation.noise.margins,
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
        n_rows=int(tensors["curves_n_rows"]),
    )
    noise = None
    if "noise_sigmas" in tensors:
        noise = NoiseResponse(tensors["noise_sigmas"], tensors["noise_agreement"], tensors["noise_margins"])
    return Observation(curves, noise, tensors.get("persistence"), int(tensors["n_rows"]))


def pick(observation: Observation, rows: Tensor) -> Observation:
    """The observation of some of its images; what it cost stays what was spent.

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
    persistence = observation.persistence
    return replace(
        observation,
        curves=picked,
        noise=noise,
        persistence=None if persistence is None else persistence[rows],
    )


def join(observations: Sequence[Observation]) -> Observation:
    """Observations of several sets of images, made alike, as one."""
    parts = [to_tensors(observation) for observation in observations]
    shared = {"alphas", "noise_sigmas"}
    joined: dict[str, Tensor] = {}
    for name, first in parts[0].items():
        if name in shared:
            joined[name] = first
        elif first.ndim == 0:
            joined[name] = torch.stack([part[name] for part in parts]).sum()
        else:
            joined[name] = torch.cat([part[name] for part in parts])
    return from_tensors(joined)
