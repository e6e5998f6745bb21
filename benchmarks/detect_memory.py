"""Peak memory of `detect` on many images at once, above that of the process with the classifier loaded.

The peak is the process's largest resident set (VmHWM), reset once classifier, detector and images are there.
"""

import argparse
import time
from pathlib import Path

import torch

from benchmarks._record import RESULTS, SUBJECTS, load_subject, write_record
from modeguard.detector import ClassTemplates, DetectorConfig, FitSet, cross_entropy_and_margin, detect, fit
from modeguard.detector.paths import evenly_spaced
from modeguard.detector.questions import Curves
from modeguard.detector.scorers import NeighborsOptions

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")


def memory_mib(field: str) -> float:
    """A field of the process's status in MiB."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS / "detect_memory.json")
    parser.add_argument("--classifier", choices=sorted(SUBJECTS), default="cifar-resnet20")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--templates", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(options.seed)
    classifier, has_trained_weights = load_subject(
        SUBJECTS[options.classifier], dtype=options.dtype, device="cpu", seed=options.seed
    )
    n_classes, shape = classifier.n_classes, classifier.input_shape
    loaded = memory_mib("VmRSS")
    with torch.inference_mode():
        far_ends = torch.rand((n_classes, options.templates, *shape), generator=generator)
        labels = torch.arange(n_classes)
        losses, margins = cross_entropy_and_margin(
            classifier(far_ends.flatten(0, 1)), labels.repeat_interleave(options.templates)
        )
        templates = ClassTemplates(labels, far_ends, losses.view(n_classes, -1), margins.view(n_classes, -1))
        config = DetectorConfig(
            questions={"curves": Curves(evenly_spaced(options.points))},
            n_templates=options.templates,
            scorer=NeighborsOptions(n_neighbors=5),
        )
        some = torch.rand((40, *shape), generator=generator)
        detector = fit(config, classifier, templates, FitSet(some, torch.arange(40) >= 20), some)
        RESET.write_text("5")
        images = torch.rand((options.images, *shape), generator=generator)
        started = time.perf_counter()
        found = detect(detector, classifier, images)
    peak = memory_mib("VmHWM")
    measured = {
        "classifier": options.classifier,
        "has_trained_weights": has_trained_weights,
        "dtype": str(classifier.compute_dtype),
        "n_images": options.images,
        "n_points": options.points,
        "n_templates": options.templates,
        "n_rows": found.n_rows,
        "seconds": round(time.perf_counter() - started, 1),
        "loaded_mib": round(loaded, 1),
        "peak_mib": round(peak, 1),
        "peak_above_loaded_mib": round(peak - loaded, 1),
        "images_mib": round(images.nbytes / 2**20, 1),
        "seed": options.seed,
    }
    print(f"peak {measured['peak_above_loaded_mib']} MiB above the loaded classifier, {found.n_rows} rows")
    write_record(options.output, "cpu", measured)


if __name__ == "__main__":
    main()
