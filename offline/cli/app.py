"""The command line `modeguard`: each step of the pipeline, all of them in one go, and what uses their outcome.

An error that a user can mend is one line on stderr and exit status 1; wrong usage is status 2; Ctrl-C is 130, and the
same command then goes on where it stopped.
"""

import dataclasses
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer

from modeguard.detector import ModeguardError
from modeguard.offline.cli.demo import run_demo
from modeguard.offline.cli.detection import FileVerdict, detect_files
from modeguard.offline.console import Console
from modeguard.offline.evaluation.results import evaluate, write_build
from modeguard.offline.evaluation.table import evaluation_table
from modeguard.offline.pipeline.build import Build
from modeguard.offline.recipe.recipe import RecipeError, read_recipe
from modeguard.offline.report.page import write_report
from modeguard.templates_store.bundles.bundle import read_bundle
from modeguard.templates_store.classifiers.loading import resolve_device
from modeguard.templates_store.files import write_file_atomically

app = typer.Typer(
    help="Tell adversarial images from natural ones by input-space mode connectivity.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()

DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda[:N].")]
BundleOption = Annotated[Path, typer.Option("--bundle", help="Directory of a bundle, as `modeguard build` leaves it.")]
FactoryOption = Annotated[
    list[str] | None,
    typer.Option("--allow-factory", help="package.module:factory that the bundle may call to make its classifier."),
]
ArtifactsOption = Annotated[Path, typer.Option("--artifacts", help="Directory where the steps keep their output.")]
ARTIFACTS = Path("artifacts")


def _recipe_options(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or path of a .toml file.")],
    artifacts: ArtifactsOption = ARTIFACTS,
    data: Annotated[
        Path | None, typer.Option(help="Directory of the images, or the .npz file; also MODEGUARD_DATA.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Directory of weights; also MODEGUARD_WEIGHTS.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed in place of the recipe's.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change one option, such as attacks.cw.n_steps=150.")
    ] = None,
    device: DeviceOption = "auto",
) -> Build:
    """A recipe's build, by the options that every step takes."""
    read = read_recipe(recipe, settings=settings or ())
    read = read.with_overrides(seed=seed, data_root=data, weights_root=weights)
    steps = Build(read, artifacts, console, resolve_device(device))
    console.note(f"recipe {read.name}, seed {read.seed}, device {steps.device}, artefacts in {steps.store.root}")
    return steps


class StoppedError(ModeguardError):
    """Ctrl-C."""


@contextmanager
def _stoppable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError("stopped; what was finished is kept, and the same command goes on from there") from None


def recipe_command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command that works on a recipe: the function gets the build, the command line the options of a recipe."""

    def register(step: Callable[..., None]) -> Callable[..., None]:
        of_recipe = inspect.signature(_recipe_options).parameters
        of_step = list(inspect.signature(step).parameters.values())[1:]

        def command(**options: object) -> None:
            with _stoppable():
                steps = _recipe_options(**{key: options.pop(key) for key in of_recipe})  # type: ignore[arg-type]
                with steps.store.locked():
                    step(steps, **options)

        parameters = sorted(
            [*of_recipe.values(), *of_step], key=lambda parameter: parameter.default is not inspect.Parameter.empty
        )
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.__doc__ = step.__doc__
        app.command(name)(command)
        return step

    return register


@app.callback()
def _modeguard(
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores if not given.", min=1)] = None,
) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
        os.environ["MODEGUARD_TORCH_THREADS"] = str(threads)  # for `serve`


@recipe_command("train")
def train(build: Build) -> None:
    """Train the recipe's classifier, or go on where training stopped; prints the file of its weights."""
    console.say(f"weights: {build.train()}")


@recipe_command("templates")
def templates(build: Build) -> None:
    """Choose the class templates."""
    chosen = build.templates.value
    names = build.dataset.class_names
    rows = [
        [names[int(label)], float(losses.min()), float(losses.max())]
        for label, losses in zip(chosen.classes, chosen.losses, strict=True)
    ]
    console.table(f"templates: {chosen.n_templates} a class", ["class", "lowest loss", "highest loss"], rows)


@recipe_command("attack")
def attack(
    build: Build,
    only: Annotated[list[str] | None, typer.Option("--only", help="Run this attack of the recipe only.")] = None,
) -> None:
    """Attack the source images."""
    unknown = sorted(set(only or ()) - set(build.recipe.attacks))
    if unknown:
        raise RecipeError(f"the recipe has no attack {', '.join(unknown)}; it has {', '.join(build.recipe.attacks)}")
    rows = []
    for name in only or build.recipe.attacks:
        attacked = build.attacked(name).value
        sizes = attacked.distances[attacked.is_successful]
        median = f"{float(sizes.median()):.4f}" if len(sizes) else "-"
        rows.append([name, len(attacked.source_rows), len(sizes), build.recipe.attacks[name].attack.norm, median])
    console.table("attacks", ["attack", "attacked", "succeeded", "norm", "median norm"], rows)


@recipe_command("fit")
def fit(build: Build) -> None:
    """Choose, fit and calibrate the detector."""
    best = build.fitted.best
    console.say(f"chosen of {len(build.fitted.trials)}: {best.config}")
    console.say(f"validation AUROC {best.mean_auroc:.4f} (mean over attacks), {best.n_rows} rows an image")


@recipe_command("evaluate")
def evaluate_command(
    build: Build,
    output: Annotated[Path | None, typer.Option("--output", help="Write the evaluation to this JSON file.")] = None,
) -> None:
    """Measure the detector on the test fold."""
    evaluation = evaluate(build)
    evaluation_table(console, evaluation)
    if output is not None:
        _write_text(output, json.dumps(evaluation.to_dict(), indent=2, allow_nan=False) + "\n")


@recipe_command("report")
def report(build: Build) -> None:
    """Write the HTML report."""
    path = build.store.root / "report.html"
    write_report(build, evaluate(build), path)
    console.say(f"report: {path}")


@recipe_command("build")
def build_command(
    build: Build,
    bundle: Annotated[Path | None, typer.Option("--bundle", help="Where to put the bundle.")] = None,
) -> None:
    """Run every step: train, templates, attack, fit, evaluate, bundle, report."""
    evaluation = evaluate(build)
    place = bundle or build.store.root / "bundle"
    digest = write_build(build, evaluation, place)
    path = build.store.root / "report.html"
    write_report(build, evaluation, path, digest=digest)
    evaluation_table(console, evaluation)
    console.say(f"bundle: {place} (digest {digest})")
    console.say(f"report: {path}")


@app.command()
def detect(
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP files.")],
    bundle: BundleOption,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    curves: Annotated[bool, typer.Option("--curves", help="With --json, give the loss curves too.")] = False,
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    device: DeviceOption = "auto",
    allow_factory: FactoryOption = None,
    bundle_digest: Annotated[
        str | None,
        typer.Option(
            envvar="MODEGUARD_BUNDLE_DIGEST", help="Digest of the only bundle to judge with; any if not given."
        ),
    ] = None,
) -> None:
    """Judge image files. Exit status 1 if one of them cannot be read as an image."""
    loaded = read_bundle(
        bundle,
        device=resolve_device(device),
        dtype=dtype,
        allowed_factories=tuple(allow_factory or ()),
        expected_digest=bundle_digest,
    )
    if loaded.warning is not None:
        console.warn(loaded.warning)
    verdicts = []
    with console.progress("judging", total=len(images)) as progress:
        for verdict in detect_files(loaded, images, with_curves=curves):
            verdicts.append(verdict)
            progress.advance()
    if as_json:
        for verdict in verdicts:
            console.say(json.dumps(dataclasses.asdict(verdict), allow_nan=False))
    else:
        columns = ["file", "predicted", "score", "p-value", "verdict"]
        console.table("", columns, [_verdict_row(verdict) for verdict in verdicts])
    if any(verdict.predicted is None for verdict in verdicts):
        raise typer.Exit(1)


@app.command()
def serve(
    bundle: BundleOption,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 for any free one.")] = None,
) -> None:
    """Serve a bundle over HTTP. The server's own settings are MODEGUARD_* variables, see docs/operations.md."""
    environment = os.environ | {"MODEGUARD_BUNDLE": str(bundle)}
    environment |= {"MODEGUARD_HOST": host} if host is not None else {}
    environment |= {"MODEGUARD_PORT": str(port)} if port is not None else {}
    # an empty entry would be the directory where the user stands
    places = filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
    environment |= {"PYTHONPATH": os.pathsep.join(places)}
    # -P: a directory "service" where the user stands is not ours
    os.execve(sys.executable, [sys.executable, "-P", "-m", "modeguard.service"], environment)  # noqa: S606


@app.command()
def demo(artifacts: ArtifactsOption = ARTIFACTS) -> None:
    """The main job on scikit-learn's digits: build, serve, ask over HTTP, report."""
    with _stoppable():
        run_demo(artifacts, console)


def _verdict_row(verdict: FileVerdict) -> list[object]:
    words = {True: "adversarial", False: "natural", None: f"no verdict: {verdict.reason}"}
    figures = [f"{value:.4f}" if value is not None else "-" for value in (verdict.score, verdict.p_value)]
    return [verdict.file, verdict.predicted or "-", *figures, words[verdict.is_adversarial]]


def _write_text(path: Path, text: str) -> None:
    try:
        write_file_atomically(path, text.encode())
    except OSError as error:
        raise ModeguardError(f"cannot write {path}: {error.strerror or error}; choose another --output") from error


def main() -> None:
    """Run the command line."""
    try:
        app()
    except StoppedError as stopped:
        console.error(str(stopped))
        sys.exit(130)
    except ModeguardError as error:
        console.error(str(error))
        sys.exit(1)
