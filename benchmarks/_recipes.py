"""The command line that the benchmarks of whole recipes share."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks._record import RESULTS

BUILT = ("cifar10-resnet20", "cifar10-vgg16")


def recipe_options(doc: str | None, *, recipes: Sequence[str] = BUILT, deals: int | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        doc: the script's docstring, for --help.
        recipes: default of --recipes.
        deals: default of --deals; None for a script that has no such option.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=list(recipes))
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory of the JSON files")
    parser.add_argument("--device", default="cpu")
    if deals is not None:
        parser.add_argument("--deals", type=int, default=deals, help="how often the folds are dealt, at least 2")
    options = parser.parse_args()
    if deals is not None and options.deals < 2:
        parser.error("--deals is at least 2, or there is no spread")
    return options
