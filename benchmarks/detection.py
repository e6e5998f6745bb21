"""How well the shipped CIFAR-10 recipes detect, and what bfloat16 changes: protocol "harder2021", one detector each.

Builds each recipe (artefacts are reused), measures it on its test fold, and once more with every test image observed in
float32 and in bfloat16 by the same detector. Needs MODEGUARD_DATA and MODEGUARD_WEIGHTS.
"""

import argparse
from pathlib import Path

import torch

from benchmarks._record import RESULTS, write_record
from detector import observe
from offline.console import Console
from offline.evaluation import auroc
from offline.pipeline import SOURCES, Build
from offline.recipe import read_recipe
from offline.results import evaluate, paired_scores, write_build
from offline.tuning import LabelledObservation
from templates_store.classifiers import load_classifier


@torch.inference_mode()
def auroc_in(build: Build, dtype: str) -> dict[str, float]:
    """AUROC by attack of the build's detector, when the classifier computes the test fold in another type."""
    detector, spec = build.fitted.detector, build.recipe.classifier.spec
    classifier = load_classifier(spec, build.weights.value, dtype=dtype, device=build.device)
    results = {}
    with build.console.progress(f"test fold in {dtype}", total=len(build.recipe.attacks)) as progress:
        for name in build.recipe.attacks:
            attacked, kept = build.attacked(name).value, build.successes(name, build.folds.is_test)
            natural = build.pixels_of(SOURCES)[attacked.source_rows[kept]]
            pixels = torch.cat([natural, attacked.images[kept]]).to(build.device)
            observation = observe(detector.config, classifier, pixels, detector.templates)
            pairs = LabelledObservation(observation, torch.arange(len(pixels)) >= len(natural))
            results[name] = auroc(paired_scores(detector, pairs))
            progress.advance()
    return results


def main() -> None:
    """Build, measure and record each recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=["cifar10-resnet20", "cifar10-vgg16"])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory of the JSON files")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    console = Console()
    for name in options.recipes:
        build = Build(read_recipe(name), options.artifacts, console, options.device)
        with build.store.locked():
            evaluation = evaluate(build)
            digest = write_build(build, evaluation, build.store.root / "bundle")
            by_dtype = {dtype: auroc_in(build, dtype) for dtype in ("float32", "bfloat16")}
        measured = {
            "recipe": name,
            "protocol": "harder2021 split and selection; see docs/method.md for what differs",
            "attacks": {attack: str(plan.attack) for attack, plan in build.recipe.attacks.items()},
            "seed": build.recipe.seed,
            "bundle_digest": digest,
            "evaluation": evaluation.to_dict(),
            "auroc_by_dtype": by_dtype,
        }
        write_record(options.results / f"detection_{name}.json", options.device, measured)


if __name__ == "__main__":
    main()
