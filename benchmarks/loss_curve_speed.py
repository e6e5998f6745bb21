"""Rows a second of loss curves beside the bare classifier's on full batches of the same rows, in turns.

The bare classifier gets the very points of the paths, made beforehand, in batches as full as the curves' own. Both are
timed in every round, so that a ratio compares neighbors in time.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._record import RESULTS, SUBJECTS, load_images, load_subject, now, write_record
from modeguard.detector import ClassTemplates, Counted, Sliced, cross_entropy_and_margin
from modeguard.detector.paths import evenly_spaced, straight_path
from modeguard.detector.questions import Curves, observe
from modeguard.templates_store.classifiers.sources import StoredClassifier

N_CLASSES = 10


def first_images_as_templates(classifier: StoredClassifier, images: Tensor) -> ClassTemplates:
    """One image a class, whatever it shows: how fast a path is computed does not depend on where it leads."""
    chosen, labels = images[:N_CLASSES], torch.arange(N_CLASSES, device=images.device)
    losses, margins = cross_entropy_and_margin(classifier(chosen), labels)
    return ClassTemplates(labels, chosen[:, None], losses[:, None], margins[:, None])


def rows_of(images: Tensor, templates: ClassTemplates, predicted: Tensor, alphas: tuple[float, ...]) -> Tensor:
    """Every row that the curves put through the classifier: the images and the points between the ends."""
    far_ends = templates.images[templates.rows_of(predicted)]
    inner = images.new_tensor([alpha for alpha in alphas if 0 < alpha < 1])
    return torch.cat([images, straight_path(images, far_ends, inner).flatten(0, 2)])


@torch.inference_mode()
def measure(classifier: StoredClassifier, images: Tensor, n_points: int, *, rows_per_call: int, n_rounds: int) -> Any:
    """Ratios of rows a second, curves over bare classifier, one a round."""
    templates, alphas = first_images_as_templates(classifier, images), evenly_spaced(n_points)
    predicted = classifier(images).argmax(dim=1)
    rows = rows_of(images, templates, predicted, alphas)

    def bare() -> None:
        for part in rows.split(rows_per_call):
            classifier(part)

    def curves() -> None:
        counted = Counted(Sliced(classifier, rows_per_call))
        observe({"curves": Curves(alphas)}, counted, images, templates)
        assert counted.n_rows == len(rows)

    seconds: dict[str, list[float]] = {"bare": [], "curves": []}
    curves()
    for round_number in range(n_rounds):
        for name, run in [("bare", bare), ("curves", curves)][:: 1 if round_number % 2 else -1]:
            started = now(images.device)
            run()
            seconds[name].append(now(images.device) - started)
    ratios = [a / b for a, b in zip(seconds["bare"], seconds["curves"], strict=True)]
    return {
        "n_points": n_points,
        "n_rows": len(rows),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "rows_per_s_curves": len(rows) / statistics.median(seconds["curves"]),
        "rows_per_s_bare": len(rows) / statistics.median(seconds["bare"]),
    }


def main() -> None:
    """Measure every classifier, type and number of points; print a line each, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS / "loss_curve_speed.json")
    parser.add_argument("--points", nargs="+", type=int, default=[8, 20, 50])
    parser.add_argument("--rows", type=int, default=2048, help="rows of one measurement, about")
    parser.add_argument("--rows-per-call", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results = []
    for name in ("cifar-resnet20", "cifar-vgg16"):
        for dtype in ("float32", "bfloat16"):
            classifier, has_trained_weights = load_subject(
                SUBJECTS[name], dtype=dtype, device=options.device, seed=options.seed
            )
            for n_points in options.points:
                n_images = max(N_CLASSES, options.rows // (n_points - 1))
                images, _, _ = load_images(SUBJECTS[name], classifier, n_images, options.device, options.seed)
                found = measure(
                    classifier, images, n_points, rows_per_call=options.rows_per_call, n_rounds=options.rounds
                )
                results.append(
                    {"classifier": name, "dtype": dtype, "has_trained_weights": has_trained_weights, **found}
                )
                print(
                    f"{name} {dtype} {n_points} points: ratio {found['ratio_median']:.3f} "
                    f"({found['ratio_min']:.3f}..{found['ratio_max']:.3f}), {found['rows_per_s_curves']:.0f} rows/s",
                    flush=True,
                )
    write_record(options.output, options.device, {"seed": options.seed, "rounds": options.rounds, "curves": results})


if __name__ == "__main__":
    main()
