"""How well the shipped CIFAR-10 recipes detect: protocol "harder2021", one detector each.

Builds each recipe (artefacts are reused) and measures it on its test fold. Needs MODEGUARD_DATA and MODEGUARD_WEIGHTS.
"""

import argparse
from pathlib import Path

from benchmarks._record import RESULTS, write_record
from offline.console import Console
from offline.pipeline import Build
from offline.recipe import read_recipe
from offline.results import evaluate, write_build


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
        measured = {
            "recipe": name,
            "protocol": "harder2021 split and selection; see docs/method.md for what differs",
            "attacks": {attack: str(plan.attack) for attack, plan in build.recipe.attacks.items()},
            "seed": build.recipe.seed,
            "bundle_digest": digest,
            "evaluation": evaluation.to_dict(),
        }
        write_record(options.results / f"detection_{name}.json", options.device, measured)


if __name__ == "__main__":
    main()
