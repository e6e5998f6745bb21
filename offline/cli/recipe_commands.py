"""The steps of a recipe, a command each, and all of them in one go; every one takes the same options of a recipe."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from modeguard.detector import ModeguardError
from modeguard.offline.cli.options import (
    ARTIFACTS,
    ArtifactsOption,
    DataOption,
    DeviceOption,
    RecipeArgument,
    SeedOption,
    SettingsOption,
    WeightsOption,
)
from modeguard.offline.cli.resumable import resumable
from modeguard.offline.console import Console
from modeguard.offline.evaluation import evaluation_table
from modeguard.offline.pipeline import Build
from modeguard.offline.recipe import RecipeError, read_recipe
from modeguard.templates_store.classifiers import resolve_device
from modeguard.templates_store.files import write_file_atomically

__all__ = ["attack", "build_command", "evaluate_command", "fit", "report", "templates", "train"]


@contextmanager
def _build_of(
    recipe: str,
    artifacts: Path,
    data: Path | None,
    weights: Path | None,
    seed: int | None,
    settings: list[str] | None,
    device: str,
) -> Iterator[Build]:
    """A recipe's build, by the options that every command here takes; kept from other processes meanwhile."""
    with resumable():
        read = read_recipe(recipe, settings=settings or ())
        read = read.with_overrides(seed=seed, data_root=data, weights_root=weights)
        build = Build(read, artifacts, Console(), resolve_device(device))
        build.console.note(
            f"recipe {read.name}, seed {read.seed}, device {build.device}, artefacts in {build.store.root}"
        )
        with build.store.locked():
            yield build


def train(
    recipe: RecipeArgument,
    artifacts: ArtifactsOption = ARTIFACTS,
    data: DataOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    settings: SettingsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train the recipe's classifier, or go on where training stopped; prints the file of its weights."""
    with _build_of(recipe, artifacts, data, weights, seed, settings, device) as build:
        build.console.say(f"weights: {build.train()}")


def templates(
    recipe: RecipeArgument,
    artifacts: ArtifactsOption = ARTIFACTS,
    data: DataOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    settings: SettingsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Choose the class templates."""
    with _build_of(recipe, artifacts, data, weights, seed, settings, device) as build:
        chosen = build.templates.value
        names = build.dataset.class_names
        rows = [
            [names[int(label)], float(losses.min()), float(losses.max())]
            for label, losses in zip(chosen.classes, chosen.losses, strict=True)
        ]
        title = f"templates: {chosen.n_templates} a class"
        build.console.table(title, ["class", "lowest loss", "highest loss"], rows)


def attack(
    recipe: RecipeArgument,
    artifacts: ArtifactsOption = ARTIFACTS,
    data: DataOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    settings: SettingsOption = None,
    device: DeviceOption = "auto",
    only: Annotated[list[str] | None, typer.Option("--only", help="Run this attack of the recipe only.")] = None,
) -> None:
    """Attack the source images."""
    with _build_of(recipe, artifacts, data, weights, seed, settings, device) as build:
        attacks = build.recipe.attacks
        if unknown := sorted(set(only or ()) - set(attacks)):
            raise RecipeError(f"the recipe has no attack {', '.join(unknown)}; it has {', '.join(attacks)}")
        rows = []
        for name in only or attacks:
            attacked = build.attacked(name).value
            sizes = attacked.distances[attacked.is_successful]
            median = f"{float(sizes.median()):.4f}" if len(sizes) else "-"
            rows.append([name, len(attacked), len(sizes), attacks[name].attack.norm, median])
        build.console.table("attacks", ["attack", "attacked", "succeeded", "norm", "median norm"], rows)


def fit(
    recipe: RecipeArgument,
    artifacts: ArtifactsOption = ARTIFACTS,
    data: DataOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    settings: SettingsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Choose, fit and calibrate the detector."""
    with _build_of(recipe, artifacts, data, weights, seed, settings, device) as build:
        best = build.fitted.best
        build.console.say(f"chosen of {len(build.fitted.trials)}: {best.config}")
        build.console.say(f"validation AUROC {best.mean_auroc:.4f} (mean over attacks), {best.n_rows} rows an image")


def evaluate_command(
    recipe: RecipeArgument,
    artifacts: ArtifactsOption = ARTIFACTS,
    data: DataOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    settings: SettingsOption = None,
    device: DeviceOption = "auto",
    output: Annotated[Path | None, typer.Option("--output", help="Write the evaluation to this JSON file.")] = None,
) -> None:
    """Measure the detector on the test fold."""
    with _build_of(recipe, artifacts, data, weights, seed, settings, device) as build:
        evaluation_table(build.console, build.evaluation)
        if output is not None:
            _write_text(output, json.dumps(build.evaluation.to_dict(), indent=2, allow_nan=False) + "\n")


def report(
    recipe: RecipeArgument,
    artifacts: ArtifactsOption = ARTIFACTS,
    data: DataOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    settings: SettingsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Write the HTML report."""
    with _build_of(recipe, artifacts, data, weights, seed, settings, device) as build:
        path = build.store.root / "report.html"
        build.write_report(path)
        build.console.say(f"report: {path}")


def build_command(
    recipe: RecipeArgument,
    artifacts: ArtifactsOption = ARTIFACTS,
    data: DataOption = None,
    weights: WeightsOption = None,
    seed: SeedOption = None,
    settings: SettingsOption = None,
    device: DeviceOption = "auto",
    bundle: Annotated[Path | None, typer.Option("--bundle", help="Where to put the bundle.")] = None,
) -> None:
    """Run every step: train, templates, attack, fit, evaluate, bundle, report."""
    with _build_of(recipe, artifacts, data, weights, seed, settings, device) as build:
        place = bundle or build.store.root / "bundle"
        digest = build.write_bundle(place)
        path = build.store.root / "report.html"
        build.write_report(path, digest=digest)
        evaluation_table(build.console, build.evaluation)
        build.console.say(f"bundle: {place} (digest {digest})")
        build.console.say(f"report: {path}")


def _write_text(path: Path, text: str) -> None:
    try:
        write_file_atomically(path, text.encode())
    except OSError as error:
        raise ModeguardError(f"cannot write {path}: {error.strerror or error}; choose another --output") from error
