"""The pipeline: what is kept, what is redone, what an interruption leaves, and that a seed decides everything."""

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from modeguard.offline.attacks import AttackedImages, Fgsm, run_attack
from modeguard.offline.console import Console
from modeguard.offline.pipeline import Build, steps
from modeguard.offline.pipeline import build as pipeline
from modeguard.offline.recipe import Recipe
from modeguard.offline.tuning import DetectorGrid, LabelledObservation, Rotation, Trial, run_trials
from modeguard.templates_store.bundles import read_bundle
from tests.offline.toy_build import toy_recipe


def quiet() -> Console:
    return Console(io.StringIO(), io.StringIO())


def build_all(recipe: Recipe, artifacts: Path) -> str:
    """Every step; the bundle's digest."""
    build = Build(recipe, artifacts, quiet())
    with build.store.locked():
        return build.write_bundle(build.store.root / "bundle")


def kept(artifacts: Path) -> set[str]:
    return {place.name for place in (artifacts / "toy").iterdir() if not place.name.startswith(".")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished toy build and its digest."""
    artifacts = tmp_path_factory.mktemp("artifacts")
    return artifacts, build_all(toy_recipe(), artifacts)


@pytest.fixture
def artifacts(finished: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the finished build's artefacts."""
    return Path(shutil.copytree(finished[0], tmp_path / "artifacts"))


def test_one_seed_gives_one_digest_and_another_seed_another(finished: tuple[Path, str], tmp_path: Path) -> None:
    assert build_all(toy_recipe(), tmp_path / "again") == finished[1]
    assert build_all(replace(toy_recipe(), seed=1), tmp_path / "other") != finished[1]


def test_a_finished_build_is_only_read(
    finished: tuple[Path, str], artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished step was run again")

    for name in ("train_weights", "pick_templates", "deal_test_images", "attack_images", "observe_images"):
        monkeypatch.setattr(steps, name, never)
    assert build_all(toy_recipe(), artifacts) == finished[1]


def with_epsilon(recipe: Recipe) -> Recipe:
    plan = recipe.attacks["fgsm"]
    return replace(recipe, attacks={**recipe.attacks, "fgsm": replace(plan, attack=Fgsm(epsilon=0.25))})


OBSERVED = ("bim", "calibration", "extra", "fgsm", "sources")

CHANGES: dict[str, tuple[Callable[[Recipe], Recipe], set[str]]] = {
    "neighbors": (lambda recipe: replace(recipe, detector=replace(recipe.detector, n_neighbors=(3,))), set()),
    "folds": (lambda recipe: replace(recipe, split=replace(recipe.split, seed=7, test_fraction=0.3)), set()),
    "one attack": (with_epsilon, {"attack-fgsm", "observe-fgsm"}),
    "templates": (
        lambda recipe: replace(recipe, templates=replace(recipe.templates, max_loss=0.4)),
        {"templates"} | {f"observe-{name}" for name in OBSERVED},
    ),
    "points": (
        lambda recipe: replace(recipe, detector=replace(recipe.detector, n_points=(3,))),
        {f"observe-{name}" for name in OBSERVED},
    ),
}


@pytest.mark.parametrize(("change", "redone"), CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_option_redoes_only_what_depends_on_it(
    artifacts: Path, change: Callable[[Recipe], Recipe], redone: set[str]
) -> None:
    before = kept(artifacts)
    build_all(change(toy_recipe()), artifacts)
    assert {name.rpartition("-")[0] for name in kept(artifacts) - before} == redone


def test_ready_weights_with_another_normalisation_are_another_classifier(artifacts: Path) -> None:
    """The file of weights stays the same; templates and roles must not be those of the other classifier."""
    (weights,) = (artifacts / "toy").glob("train-*.safetensors")
    keys = set()
    for mean in (0.3, 0.32):
        recipe = toy_recipe()
        section = replace(recipe.classifier, weights=weights, spec=replace(recipe.classifier.spec, mean=(mean,)))
        build = Build(replace(recipe, classifier=section), artifacts, quiet())
        keys |= {build.templates.key, build.roles.key}
    assert len(keys) == 4


INTERRUPTED = {
    "training": (steps, "train_classifier"),
    "templates": (steps, "choose_templates"),
    "roles": (steps, "deal_roles"),
    "attack": (steps, "run_attack"),
    "observing": (steps, "observe"),
    "tuning": (pipeline, "run_trials"),
    "fitting": (pipeline, "fit_observed"),
    "evaluating": (pipeline, "evaluate"),
    "bundle": (pipeline, "write_bundle"),
}


@pytest.mark.parametrize(("module", "name"), INTERRUPTED.values(), ids=INTERRUPTED.keys())
def test_ctrl_c_in_any_step_loses_nothing_and_the_next_run_finishes(
    finished: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    """The step's second call is interrupted where there is one, so that something is half done."""
    original, calls = getattr(module, name), iter([None] if name in ("run_attack", "observe") else [])

    def interrupted(*args: object, **options: object) -> object:
        if next(calls, "stop") == "stop":
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(module, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_all(toy_recipe(), tmp_path)
    monkeypatch.undo()
    left = kept(tmp_path)
    assert build_all(toy_recipe(), tmp_path) == finished[1]
    assert {name for name in left if not name.endswith((".work", ".checkpoint"))} <= kept(tmp_path)
    assert not [place for place in tmp_path.rglob("*") if ".new-" in place.name or place.name.endswith(".work")]


def test_an_interrupted_attack_goes_on_with_the_next_batch(
    finished: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy_recipe()
    recipe = replace(recipe, attacks={"fgsm": replace(recipe.attacks["fgsm"], batch_size=20)})
    sizes: list[int] = []

    def counted(*args: Any, **options: Any) -> AttackedImages:
        if len(sizes) == 2:
            sizes.append(0)
            raise KeyboardInterrupt
        sizes.append(len(args[2]))
        return run_attack(*args, **options)

    monkeypatch.setattr(steps, "run_attack", counted)
    with pytest.raises(KeyboardInterrupt):
        Build(recipe, tmp_path, quiet()).attacked("fgsm")
    resumed = Build(recipe, tmp_path, quiet()).attacked("fgsm").value
    assert sizes == [20, 20, 0, 20]
    whole = Build(recipe, tmp_path / "fresh", quiet()).attacked("fgsm").value
    torch.testing.assert_close(resumed.images, whole.images, atol=0, rtol=0)


def test_twins_are_in_the_same_rows_and_the_same_fold(artifacts: Path) -> None:
    build = Build(toy_recipe(), artifacts, quiet())
    n_pairs = []
    for among in (build.folds.is_test, *build.folds.validation_parts):
        pairs = build.sets.pairs("fgsm", among)
        n = len(pairs.is_adversarial) // 2
        assert pairs.is_adversarial.tolist() == [False] * n + [True] * n
        assert torch.equal(pairs.source[:n], pairs.source[n:])
        labels = build.dataset.test.labels[build.roles.value.sources]
        attacked = build.attacked("fgsm").value
        rows = attacked.is_successful & among
        assert torch.equal(pairs.observation.at_image.predicted[:n], labels[rows])
        assert (pairs.observation.at_image.predicted[n:] != labels[rows]).all()
        n_pairs.append(n)
    assert sum(n_pairs) == int(build.attacked("fgsm").value.is_successful.sum()) > 0


def seen_in(*parts: LabelledObservation) -> set[tuple[float, ...]]:
    """Images by their logits, which no two of them share."""
    return {tuple(logits) for part in parts for logits in part.observation.at_image.logits.tolist()}


def test_no_turn_of_the_choice_sees_the_test_fold_or_validates_on_its_own_references(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Build(toy_recipe(), artifacts, quiet())
    turns: list[Rotation] = []

    def watched(grid: DetectorGrid, rotations: list[Rotation]) -> Iterator[Trial]:
        turns.extend(rotations)
        return run_trials(grid, rotations)

    monkeypatch.setattr(pipeline, "run_trials", watched)
    assert build.fitted.best in build.fitted.trials
    of_test = seen_in(*(build.sets.pairs(name, build.folds.is_test) for name in build.recipe.attacks))
    validated: set[tuple[float, ...]] = set()
    assert len(turns) == len(build.folds.validation_parts) > 1
    for turn in turns:
        references, validation = seen_in(turn.fit), seen_in(*turn.validation.values())
        assert validation
        assert not references & validation
        assert not of_test & (references | validation)
        assert not validated & validation
        validated |= validation
    assert validated == seen_in(*(build.sets.pairs(name, ~build.folds.is_test) for name in build.recipe.attacks))


def test_a_bundle_says_in_which_type_its_build_computed(artifacts: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        recipe = replace(toy_recipe(), classifier=replace(toy_recipe().classifier, dtype=dtype))
        build_all(recipe, artifacts)
        read = read_bundle(artifacts / "toy" / "bundle")
        assert read.manifest.compute_dtype == dtype


def test_the_evaluation_is_of_images_the_detector_has_not_seen(artifacts: Path) -> None:
    build = Build(toy_recipe(), artifacts, quiet())
    roles = build.roles.value
    test_sources = set(roles.sources[build.folds.is_test].tolist())
    others = set(roles.calibration.tolist()) | set(roles.extra.tolist())
    assert test_sources
    assert not test_sources & others
    evaluation = build.evaluation
    assert evaluation.worst_attack in build.recipe.attacks
    n_references = len(build.fitted.references.features)
    n_natural = int((~build.folds.is_test).sum()) + len(roles.extra)
    assert evaluation.n_fit_natural == n_natural
    assert n_references == evaluation.n_fit_natural + evaluation.n_fit_adversarial
