"""What bfloat16 changes: detectors fitted in either type, judging images in either type.

A detector with the recipe's choices is fitted anew for each of several deals of the folds, once in float32 and once in
bfloat16 throughout, and judges each test fold as either type sees it: the same type is what a build and its server do,
another type is a bundle served on other hardware. Needs MODEGUARD_DATA and MODEGUARD_WEIGHTS.
"""

from dataclasses import replace
from typing import Any

from benchmarks._recipes import recipe_options
from benchmarks._record import write_record
from modeguard.detector import Detector, DetectorConfig
from modeguard.detector.questions import Curves
from modeguard.offline import Console
from modeguard.offline.evaluation import auroc, flagged_shares, paired_scores
from modeguard.offline.pipeline import Build
from modeguard.offline.recipe import Recipe, read_recipe
from modeguard.offline.tuning import LabelledObservation
from modeguard.templates_store.bundles import plain_of
from modeguard.templates_store.classifiers import DtypeName

TYPES: tuple[DtypeName, ...] = ("float32", "bfloat16")


def recipe_in(recipe: Recipe, dtype: DtypeName, config: DetectorConfig, fold_seed: int) -> Recipe:
    """The recipe in one type and one deal of the folds, observing no more than one detector needs."""
    curves = config.questions.get("curves")
    grid = replace(
        recipe.detector,
        n_points=(len(curves.alphas) if isinstance(curves, Curves) else 2,),
        n_templates=(config.n_templates,),
        features=(config.features,),
    )
    return replace(
        recipe,
        classifier=replace(recipe.classifier, dtype=dtype),
        detector=grid,
        split=replace(recipe.split, seed=fold_seed),
    )


def still_fooling(pairs: LabelledObservation) -> float:
    """Fraction of adversarial images that are given another class than their natural twins in this type."""
    natural, adversarial = pairs.observation.at_image.predicted.chunk(2)
    return float((natural != adversarial).double().mean())


def judged(detector: Detector, build: Build) -> dict[str, Any]:
    """One detector on the test fold as one build observes it, by attack."""
    found: dict[str, Any] = {"auroc": {}, "natural_flagged": {}, "still_fooling": {}}
    for name in build.recipe.attacks:
        pairs = build.sets.pairs(name, build.folds.is_test)
        found["auroc"][name] = auroc(paired_scores(detector, pairs))
        found["natural_flagged"][name], _ = flagged_shares(detector, pairs)
        found["still_fooling"][name] = still_fooling(pairs)
    return found


def main() -> None:
    """Measure and record each recipe."""
    options = recipe_options(__doc__, deals=8)
    console = Console()
    for name in options.recipes:
        recipe = read_recipe(name)
        chosen = Build(recipe, options.artifacts, console, options.device)
        with chosen.store.locked():
            config = chosen.fitted.best.config
            deals = []
            for seed in range(1, options.deals + 1):
                builds = {
                    dtype: Build(recipe_in(recipe, dtype, config, seed), options.artifacts, console, options.device)
                    for dtype in TYPES
                }
                detectors = {dtype: build.fit(config) for dtype, build in builds.items()}
                cases = [
                    {"fitted_in": fitted, "judged_in": seen, **judged(detector, build)}
                    for fitted, detector in detectors.items()
                    for seen, build in builds.items()
                ]
                deals.append({"fold_seed": seed, "cases": cases})
        measured = {"recipe": name, "config": plain_of(config), "deals": deals}
        write_record(options.results / f"compute_types_{name}.json", options.device, measured)


if __name__ == "__main__":
    main()
