"""How the figures move with the deal of the folds, and what simpler detectors reach on the same folds.

For each of several seeds the sources are dealt into folds anew, and the recipe's detector is chosen, fitted and
measured as in a build; attacks and loss curves stay. Beside it, untuned but with the same references, stand the
features of the method's paper and a margin curve of few templates. Needs MODEGUARD_DATA and MODEGUARD_WEIGHTS.
"""

from dataclasses import replace
from typing import Any

from benchmarks._recipes import recipe_options
from benchmarks._record import write_record
from modeguard.detector import Detector, DetectorConfig, rows_per_image
from modeguard.detector.paths import evenly_spaced
from modeguard.detector.questions import Curves
from modeguard.offline import Console
from modeguard.offline.evaluation import auroc, paired_scores, tpr_at_fpr
from modeguard.offline.pipeline import Build
from modeguard.offline.recipe import Recipe, read_recipe
from modeguard.templates_store.bundles import plain_of


def baselines(recipe: Recipe) -> dict[str, DetectorConfig]:
    """Untuned detectors, by name: 25 neighbors, weighted by distance, in standardised Euclidean space."""
    config = DetectorConfig(
        questions={"curves": Curves(evenly_spaced(max(recipe.detector.n_points)))},
        n_logits=recipe.detector.n_logits,
        target_fpr=recipe.detector.target_fpr,
    )
    return {
        "loss curve, 1 template": replace(config, features=("loss_curve", "sorted_logits"), n_templates=1),
        "margin curve, 3 templates": replace(config, features=("margin_curve", "sorted_logits"), n_templates=3),
    }


def measured(build: Build, detector: Detector) -> dict[str, Any]:
    """AUROC and TPR at 5 % FPR on the test fold, by attack, with what the detector is."""
    scores = {
        name: paired_scores(detector, build.sets.pairs(name, build.folds.is_test)) for name in build.recipe.attacks
    }
    return {
        "config": plain_of(detector.config),
        "n_rows": rows_per_image(detector.config),
        "auroc": {name: auroc(pairs) for name, pairs in scores.items()},
        "tpr_at_5_fpr": {name: tpr_at_fpr(pairs, 0.05) for name, pairs in scores.items()},
    }


def main() -> None:
    """Measure and record each recipe."""
    options = recipe_options(__doc__, deals=8)
    console = Console()
    for name in options.recipes:
        recipe = read_recipe(name)
        deals = []
        for seed in range(1, options.deals + 1):
            dealt = replace(recipe, split=replace(recipe.split, seed=seed))
            build = Build(dealt, options.artifacts, console, options.device)
            with build.store.locked():
                detectors = {"chosen": build.fitted.detector}
                detectors |= {label: build.fit(config) for label, config in baselines(recipe).items()}
                found = {label: measured(build, detector) for label, detector in detectors.items()}
            deals.append({"fold_seed": seed, "detectors": found})
        write_record(options.results / f"fold_deals_{name}.json", options.device, {"recipe": name, "deals": deals})


if __name__ == "__main__":
    main()
