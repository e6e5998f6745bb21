"""Test accuracy of a recipe's full training schedule; a training that was begun goes on, a finished one is only read.

    python -m benchmarks.training --recipes cifar10-vgg16 --artifacts artifacts

Takes hours on a CPU. Needs MODEGUARD_DATA. The weights stay among the artefacts and are no part of the result.
"""

from dataclasses import asdict, replace

import torch

from benchmarks._recipes import recipe_options
from benchmarks._record import write_record
from modeguard.detector import Sliced, to_pixels
from modeguard.offline import Console
from modeguard.offline.pipeline import Build
from modeguard.offline.recipe import read_recipe
from modeguard.offline.training import train_classifier
from modeguard.templates_store.classifiers import DTYPES, dtype_name, load_classifier, resolve_dtype


@torch.inference_mode()
def accuracies(build: Build) -> dict[str, float]:
    """Share of all test images that the finished weights get right, by compute type."""
    test, found = build.dataset.test, {}
    for dtype in DTYPES:
        classifier = load_classifier(
            build.recipe.classifier.spec, build.weights.value, dtype=dtype, device=build.device
        )
        logits = Sliced(classifier)(to_pixels(test.images).to(build.device))
        found[dtype] = float((logits.argmax(dim=1).cpu() == test.labels).double().mean())
    return found


def main() -> None:
    """Train, measure and record each recipe."""
    options = recipe_options(__doc__, recipes=("cifar10-vgg16",))
    for name in options.recipes:
        recipe = read_recipe(name)
        recipe = replace(recipe, classifier=replace(recipe.classifier, weights=None))
        build = Build(recipe, options.artifacts, Console(), options.device)
        with build.store.locked():
            weights = build.weights.value
            result = train_classifier(
                recipe.classifier.spec,
                build.dataset.train,
                build.dataset.test,
                recipe.training,
                checkpoint=weights.with_suffix(".checkpoint"),
                device=build.device,
            )
            measured = {
                "recipe": name,
                "training": asdict(recipe.training),
                "computed_in": dtype_name(resolve_dtype(recipe.training.precision, build.device)),
                "n_train": len(build.dataset.train),
                "n_test": len(build.dataset.test),
                "test_accuracy": accuracies(build),
                "history": [asdict(record) for record in result.history],
            }
        write_record(options.results / f"training_{name}.json", options.device, measured)


if __name__ == "__main__":
    main()
