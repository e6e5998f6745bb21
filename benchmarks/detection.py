"""How well the shipped CIFAR-10 recipes detect: protocol "harder2021", one detector each.

Builds each recipe (artefacts are reused) and measures it on its test fold. Needs MODEGUARD_DATA and MODEGUARD_WEIGHTS.
"""

from benchmarks._recipes import recipe_options
from benchmarks._record import write_record
from modeguard.offline import Console
from modeguard.offline.pipeline import Build
from modeguard.offline.recipe import read_recipe


def main() -> None:
    """Build, measure and record each recipe."""
    options = recipe_options(__doc__)
    console = Console()
    for name in options.recipes:
        build = Build(read_recipe(name), options.artifacts, console, options.device)
        with build.store.locked():
            digest = build.write_bundle(build.store.root / "bundle")
        measured = {
            "recipe": name,
            "protocol": "harder2021 split and selection; see docs/method.md for what differs",
            "attacks": {attack: str(plan.attack) for attack, plan in build.recipe.attacks.items()},
            "seed": build.recipe.seed,
            "bundle_digest": digest,
            "evaluation": build.evaluation.to_dict(),
        }
        write_record(options.results / f"detection_{name}.json", options.device, measured)


if __name__ == "__main__":
    main()
