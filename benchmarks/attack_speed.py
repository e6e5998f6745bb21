"""Wall time of the five benchmark attacks against foolbox's: same parameters, batch and device, in turns.

    python -m benchmarks.attack_speed --classifier cifar-resnet20

Trained weights are read from the directory MODEGUARD_WEIGHTS and CIFAR-10 from MODEGUARD_DATA; without them the
weights or the pixels are random, which the output says.
"""

import argparse
import statistics
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._record import RESULTS, SUBJECTS, load_images, load_subject, now, predict, write_record
from modeguard.offline.attacks import (
    Attack,
    AttackedImages,
    Bim,
    CarliniWagner,
    DeepFool,
    Fgsm,
    Misclassified,
    Pgd,
    distances,
    is_misclassified,
    run_attack,
)
from modeguard.templates_store.classifiers.sources import StoredClassifier

with warnings.catch_warnings():
    # foolbox imports one filter from where scipy used to keep it
    warnings.filterwarnings("ignore", "Please import `gaussian_filter`", DeprecationWarning)
    import foolbox

foolbox_: Any = foolbox  # its names are not exported to type checkers
EPSILON = 0.03


@dataclass(frozen=True, slots=True)
class Pair:
    """The same attack twice."""

    ours: Attack
    theirs: Any
    epsilon: float | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """What one implementation did to the correctly classified images."""

    success_rate: float
    median_distance: float
    seconds: list[float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One attack, both implementations; a ratio below 1 says that ours is faster."""

    attack: str
    n_images: int
    parameters: dict[str, Any]
    ratio_median: float
    ratio_min: float
    ratio_max: float
    ours: Side
    foolbox: Side


def make_pairs(cw_steps: int, cw_search_steps: int) -> dict[str, Pair]:
    """The attacks with their published parameters, but for the number of Carlini-Wagner steps."""
    attacks = foolbox_.attacks
    carlini_wagner = attacks.L2CarliniWagnerAttack(
        binary_search_steps=cw_search_steps, steps=cw_steps, stepsize=0.01, confidence=0, initial_const=1e-3
    )
    return {
        "fgsm": Pair(Fgsm(EPSILON), attacks.LinfFastGradientAttack(random_start=False), EPSILON),
        "bim": Pair(Bim(EPSILON), attacks.LinfBasicIterativeAttack(rel_stepsize=0.2, steps=10), EPSILON),
        "pgd": Pair(Pgd(EPSILON), attacks.LinfProjectedGradientDescentAttack(rel_stepsize=1 / 30, steps=40), EPSILON),
        "deepfool": Pair(DeepFool(), attacks.L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02)),
        "cw": Pair(CarliniWagner(n_steps=cw_steps, n_search_steps=cw_search_steps), carlini_wagner),
    }


def compare(
    name: str, pair: Pair, classifier: StoredClassifier, images: Tensor, labels: Tensor, *, n_rounds: int, seed: int
) -> Comparison:
    """Run both in turns, each first in every other round, after one unmeasured forward and backward pass."""
    model = foolbox_.PyTorchModel(classifier, bounds=(0, 1), device=images.device)
    is_correct = ~is_misclassified(classifier, images, labels)
    goal = Misclassified(classifier, labels)

    def run(attack: Attack) -> AttackedImages:
        # foolbox attacks the whole batch without looking first; told that nothing meets the goal, ours does so too
        is_met = torch.zeros_like(is_correct)
        generator = torch.Generator().manual_seed(seed)
        return run_attack(attack, goal, images, batch_size=len(images), generator=generator, is_met=is_met)

    def ours() -> tuple[Tensor, Tensor]:
        attacked = run(pair.ours)
        return attacked.images, attacked.is_successful

    def theirs() -> tuple[Tensor, Tensor]:
        _, adversarial, is_fooled = pair.theirs(model, images, labels, epsilons=pair.epsilon)
        return adversarial, is_fooled

    sides: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {"ours": ours, "foolbox": theirs}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    found: dict[str, tuple[Tensor, Tensor]] = {}
    run(Fgsm())
    torch.manual_seed(seed)
    for round_number in range(n_rounds):
        for side in list(sides)[:: 1 if round_number % 2 == 0 else -1]:
            seconds[side].append(0.0)
            started = now(images.device)
            found[side] = sides[side]()
            seconds[side][-1] = now(images.device) - started
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["foolbox"], strict=True)]
    return Comparison(
        attack=name,
        n_images=len(images),
        parameters=asdict(pair.ours),  # type: ignore[call-overload]
        ratio_median=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        ours=measure(*found["ours"], images, is_correct, pair.ours, seconds["ours"]),
        foolbox=measure(*found["foolbox"], images, is_correct, pair.ours, seconds["foolbox"]),
    )


def measure(
    adversarial: Tensor, is_fooled: Tensor, images: Tensor, is_correct: Tensor, attack: Attack, seconds: list[float]
) -> Side:
    """Success rate and median distance among correctly classified images.

    A black image, which foolbox's Carlini-Wagner returns where it found nothing, is no success.
    """
    is_success = is_fooled & is_correct & adversarial.flatten(1).any(dim=1)
    sizes = distances(images, adversarial, attack.norm)[is_success]
    return Side(
        success_rate=(is_success.sum() / is_correct.sum()).item(),
        median_distance=sizes.median().item(),
        seconds=[round(value, 4) for value in seconds],
    )


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS / "attack_speed.json", help="JSON file to write")
    parser.add_argument("--classifier", choices=sorted(SUBJECTS), default="cifar-resnet20")
    parser.add_argument("--attacks", nargs="+", choices=sorted(make_pairs(1, 1)), default=list(make_pairs(1, 1)))
    parser.add_argument("--images", type=int, default=64, help="rows of the one batch")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each implementation")
    parser.add_argument("--fgsm-rounds", type=int, default=15, help="as --rounds, of the one attack that is brief")
    parser.add_argument("--cw-images", type=int, default=16, help="as --images, of Carlini-Wagner, which takes long")
    parser.add_argument("--cw-steps", type=int, default=1000, help="fewer make both stop early at other places")
    parser.add_argument("--cw-search-steps", type=int, default=9)
    parser.add_argument("--dtype", default="float32", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Time every attack asked for, print a line each, write the JSON."""
    options = parse_options()
    subject = SUBJECTS[options.classifier]
    classifier, has_trained_weights = load_subject(
        subject, dtype=options.dtype, device=options.device, seed=options.seed
    )
    images, labels, has_real_images = load_images(subject, classifier, options.images, options.device, options.seed)
    if not has_trained_weights:
        labels = predict(classifier, images)
    comparisons = []
    for name, pair in make_pairs(options.cw_steps, options.cw_search_steps).items():
        if name not in options.attacks:
            continue
        n_rounds = options.fgsm_rounds if name == "fgsm" else options.rounds
        rows = slice(options.cw_images if name == "cw" else None)
        result = compare(name, pair, classifier, images[rows], labels[rows], n_rounds=n_rounds, seed=options.seed)
        comparisons.append(result)
        print(
            f"{name:9} time ratio {result.ratio_median:.3f} ({result.ratio_min:.3f}..{result.ratio_max:.3f})"
            f"  success {result.ours.success_rate:.3f} | {result.foolbox.success_rate:.3f}"
            f"  median {pair.ours.norm} {result.ours.median_distance:.4f} | {result.foolbox.median_distance:.4f}",
            flush=True,
        )
    measured = {
        "classifier": options.classifier,
        "has_trained_weights": has_trained_weights,
        "has_real_images": has_real_images,
        "dtype": options.dtype,
        "seed": options.seed,
        "attacks": [asdict(comparison) for comparison in comparisons],
    }
    write_record(options.output, options.device, measured)


if __name__ == "__main__":
    main()
