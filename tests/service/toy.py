"""A classifier whose answer can be read off the image, and its bundle: red, green or blue, the brightest wins."""

import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from modeguard.detector import ClassTemplates, DetectorConfig, FitSet, cross_entropy_and_margin, fit
from modeguard.detector.questions import Curves
from modeguard.detector.scorers import NeighborsOptions
from modeguard.templates_store.bundles import write_bundle
from modeguard.templates_store.classifiers import ClassifierSpec, NetworkClassifier, Trust, build_classifier
from modeguard.templates_store.images import InputSpec

FACTORY = "tests.service.toy:BrightestChannel"
CLASS_NAMES = ("red", "green", "blue")
SIDE = 8
RED, NEARLY_GREY, BLUE = (204, 51, 51), (133, 122, 102), (20, 30, 220)  # natural, adversarial, without template


class BrightestChannel(nn.Module):
    """Logits are the channels' mean brightness times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(20.0))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 3)."""
        logits: Tensor = self.weight * images.mean(dim=(2, 3))
        return logits


Colour = tuple[int, int, int]


def coloured(colour: tuple[float, float, float], n: int = 1, noise: float = 0.1, seed: int = 0) -> Tensor:
    """(n, 3, 8, 8) pixels around a colour."""
    draws = torch.randn((n, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))
    return (torch.tensor(colour).view(3, 1, 1) + noise * draws).clamp(0, 1)


def image_file(
    colour: Colour, image_format: str = "PNG", size: tuple[int, int] = (SIDE, SIDE), **options: Any
) -> bytes:
    """An image file of one colour, 0 to 255."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, image_format, **options)
    return buffer.getvalue()


def toy_classifier() -> NetworkClassifier:
    spec = ClassifierSpec(FACTORY, 3, (3, SIDE, SIDE), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return build_classifier(spec, trust=Trust((FACTORY,))).eval().requires_grad_(requires_grad=False)


def write_toy_bundle(path: Path) -> str:
    """Write a bundle that knows red and green, calls colours close to grey adversarial, and abstains on blue."""
    classifier = toy_classifier()
    classes = torch.tensor([0, 1])
    images = torch.stack([coloured((0.9, 0.1, 0.1), 2), coloured((0.1, 0.9, 0.1), 2)])
    losses, margins = cross_entropy_and_margin(classifier(images.flatten(0, 1)), classes.repeat_interleave(2))
    templates = ClassTemplates(classes, images, losses.view(2, 2), margins.view(2, 2))
    natural = torch.cat([coloured((0.8, 0.2, 0.2), 60, seed=1), coloured((0.2, 0.8, 0.2), 60, seed=2)])
    attacked = torch.cat([coloured((0.52, 0.48, 0.4), 30, seed=3), coloured((0.48, 0.52, 0.4), 30, seed=4)])
    detector = fit(
        DetectorConfig(
            questions={"curves": Curves(alphas=(0.0, 0.25, 0.5, 0.75, 1.0))},
            n_templates=2,
            scorer=NeighborsOptions(n_neighbors=5),
        ),
        classifier,
        templates,
        FitSet(torch.cat([natural[::2], attacked]), torch.arange(120) >= 60),
        natural[1::2],
    )
    return write_bundle(
        path,
        name="colours",
        detector=detector,
        classifier=classifier,
        class_names=CLASS_NAMES,
        input_spec=InputSpec((3, SIDE, SIDE)),
        seeds={"fit": 0},
        measured={"auroc": {"none": 1.0}},
    )
