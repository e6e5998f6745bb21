"""What a report shows of single images and of many: examples judged again, and the spread of curves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeguard.detector import Classifier, Detector, Verdict, detect, join, judge, pick, to_device
from modeguard.detector.paths import evenly_spaced
from modeguard.detector.questions import Curves, LossCurves, observe
from modeguard.offline.evaluation import HeldOut
from modeguard.offline.report.pictures import Spread
from modeguard.offline.tuning import LabelledObservation

Array = NDArray[np.float64]

_N_DRAWN_POINTS = 33


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A test image and its adversarial twin, before they are judged.

    Attributes:
        attack: name in the recipe.
        norm: of the attack.
        distance: size of the perturbation in that norm.
        label: the true class.
        natural, adversarial: (c, h, w) pixels in [0, 1].
    """

    attack: str
    norm: str
    distance: float
    label: int
    natural: Tensor
    adversarial: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One image and what the detector says of it.

    Attributes:
        pixels: (c, h, w) in [0, 1].
        verdict: in plain values.
        template: (c, h, w), the best one of the predicted class; None where it has none.
        alphas: (n_points,) of the path, more than the detector looks at.
        losses: (n_templates, n_points) along the paths; NaN where there is no template.
        is_seen: (n_points,) bool, the points that the detector looks at.
    """

    pixels: Tensor
    verdict: Verdict
    template: Tensor | None
    alphas: Array
    losses: Array
    is_seen: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """An example and what the detector says of its two images."""

    example: Example
    natural: Judged
    adversarial: Judged


def cases_of(
    detector: Detector, classifier: Classifier, examples: Sequence[Example], device: torch.device
) -> list[Case]:
    """Judge examples.

    Args:
        detector: on any device.
        classifier: on `device`.
        examples: with images on the CPU.
        device: where it is done.
    """
    on_device = to_device(detector, device)
    natural = _judge(on_device, classifier, torch.stack([example.natural for example in examples]))
    adversarial = _judge(on_device, classifier, torch.stack([example.adversarial for example in examples]))
    return [Case(*case) for case in zip(examples, natural, adversarial, strict=True)]


def pooled_pairs(held_out: HeldOut) -> LabelledObservation:
    """Every natural source of the test fold once, and every successful attack on them."""
    pairs = [attack.pairs for attack in held_out.attacks.values()]
    adversarial = [pick(each.observation, each.is_adversarial) for each in pairs]
    joined, n_natural = join([held_out.natural, *adversarial]), len(held_out.natural)
    sources = torch.cat([torch.arange(n_natural), *(each.source[each.is_adversarial] for each in pairs)])
    return LabelledObservation(joined, torch.arange(len(joined)) >= n_natural, sources)


def spread_of(detector: Detector, pairs: LabelledObservation, quantity: str) -> Spread | None:
    """Curves of both kinds, the mean over the templates; images without template are left out.

    Args:
        detector: its points and templates are used.
        pairs: images of both kinds.
        quantity: "losses" or "margins".

    Returns:
        None where the detector asks for no curves.
    """
    found = judge(detector, pairs.observation)
    if found.curves is None:
        return None
    means = getattr(found.curves, quantity).mean(dim=1)
    return Spread(
        alphas=np.array(found.alphas),
        natural=means[found.has_template & ~pairs.is_adversarial].double().numpy(),
        adversarial=means[found.has_template & pairs.is_adversarial].double().numpy(),
    )


def _judge(detector: Detector, classifier: Classifier, images: Tensor) -> list[Judged]:
    pixels = images.to(detector.calibration_scores.device)
    with torch.inference_mode():
        found = detect(detector, classifier, pixels)
        alphas = sorted({*evenly_spaced(_N_DRAWN_POINTS), *found.alphas})
        drawn = observe({"curves": Curves(tuple(alphas))}, classifier, pixels, detector.templates)
    curves: LossCurves = drawn.answers["curves"]
    losses: Array = curves.losses.double().cpu().numpy()
    template_rows = detector.templates.rows_of(found.predicted).tolist()
    is_seen = np.array([alpha in set(found.alphas) for alpha in alphas])
    return [
        Judged(
            pixels=images[row],
            verdict=verdict,
            template=None if template_rows[row] < 0 else detector.templates.images[template_rows[row], 0].cpu(),
            alphas=np.array(alphas),
            losses=losses[row],
            is_seen=is_seen,
        )
        for row, verdict in enumerate(found.verdicts())
    ]
