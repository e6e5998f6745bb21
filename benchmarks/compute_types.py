"""What bfloat16 changes: one detector's AUROC on images observed in float32 and in bfloat16.

The recipe's detector is chosen once and fitted anew for each of several deals of the folds, on references observed in
the recipe's type; each test fold is then judged as either type sees it. Needs MODEGUARD_DATA and MODEGUARD_WEIGHTS.
"""

from dataclasses import replace

import torch

from benchmarks._recipes import recipe_options
from benchmarks._record import write_record
from detector import Detector, Observation, observe
from offline import observations
from offline.console import Console
from offline.evaluation import auroc
from offline.pipeline import SOURCES, Build
from offline.recipe import read_recipe
from offline.results import paired_scores
from offline.tuning import LabelledObservation
from templates_store.classifiers import DTYPES, load_classifier

IMAGES_AT_A_TIME = 256


@torch.inference_mode()
def observed_in(build: Build, dtype: str) -> dict[str, Observation]:
    """What the classifier says of the sources and of each attack's images, computed in one type."""
    detector, spec = build.fitted.detector, build.recipe.classifier.spec
    classifier = load_classifier(spec, build.weights.value, dtype=dtype, device=build.device)
    found = {}
    for name in (SOURCES, *build.recipe.attacks):
        pixels = build.pixels_of(name)
        parts = []
        with build.console.progress(f"{name} in {dtype}", total=len(pixels)) as progress:
            for images in pixels.split(IMAGES_AT_A_TIME):
                parts.append(observe(detector.config, classifier, images.to(build.device), detector.templates))
                progress.advance(len(images))
        found[name] = observations.join(parts)
    return found


def aurocs(build: Build, detector: Detector, observed: dict[str, Observation]) -> dict[str, float]:
    """AUROC on the test fold, by attack."""
    found = {}
    for name in build.recipe.attacks:
        kept = build.successes(name, build.folds.is_test)
        natural = observations.pick(observed[SOURCES], build.attacked(name).value.source_rows[kept])
        both = observations.join([natural, observations.pick(observed[name], kept)])
        n_pairs = int(kept.sum())
        pairs = LabelledObservation(both, torch.arange(2 * n_pairs) >= n_pairs)
        found[name] = auroc(paired_scores(detector, pairs))
    return found


def main() -> None:
    """Measure and record each recipe."""
    options = recipe_options(__doc__, deals=8)
    console = Console()
    for name in options.recipes:
        recipe = read_recipe(name)
        build = Build(recipe, options.artifacts, console, options.device)
        with build.store.locked():
            config = build.fitted.detector.config
            observed = {dtype: observed_in(build, dtype) for dtype in DTYPES}
            deals = []
            for seed in range(1, options.deals + 1):
                dealt = replace(recipe, split=replace(recipe.split, seed=seed))
                of_deal = Build(dealt, options.artifacts, console, options.device)
                detector = of_deal.fit(config)
                found = {dtype: aurocs(of_deal, detector, seen) for dtype, seen in observed.items()}
                deals.append({"fold_seed": seed, "auroc": found})
        write_record(options.results / f"compute_types_{name}.json", options.device, {"recipe": name, "deals": deals})


if __name__ == "__main__":
    main()
