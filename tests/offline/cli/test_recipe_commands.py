"""The steps of a recipe: refusals in one line, Ctrl-C, one process at a time, files whole or not at all."""

import io
import json
from pathlib import Path

import pytest

from modeguard.offline.cli import recipe_commands
from modeguard.offline.cli.app import COMMANDS, load_command
from modeguard.offline.console import Console
from modeguard.offline.pipeline import Build
from modeguard.offline.recipe import read_recipe
from tests.offline.cli.conftest import Run
from tests.offline.toy_build import toy_recipe

OF_A_RECIPE = {
    "recipe": (["recipe"], True, None),
    "artifacts": (["--artifacts"], False, Path("artifacts")),
    "data": (["--data"], False, None),
    "weights": (["--weights"], False, None),
    "seed": (["--seed"], False, None),
    "settings": (["--set"], False, None),
    "device": (["--device"], False, "auto"),
}
ITS_OWN = {"attack": {"only"}, "evaluate": {"output"}, "build": {"bundle"}}

REFUSED = {
    "unknown recipe": (("build", "digit"), "there is no recipe 'digit', did you mean digits?"),
    "unknown key": (("fit", "digits", "--set", "split.n_source=3"), "n_source is unknown, did you mean n_sources?"),
    "wrong value": (("fit", "digits", "--set", "attacks.pgd.epsilon=3"), "epsilon"),
    "no data": (("templates", "cifar10-resnet20", "--data", "nowhere", "--weights", "."), "no file at"),
    "no such attack": (("attack", "digits", "--only", "cww"), "the recipe has no attack cww; it has fgsm"),
    "no such device": (
        ("attack", "digits", "--device", "cuda:77"),
        "a device of this machine was expected, got 'cuda:77'",
    ),
}


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if "recipe" in command.place])
def test_every_step_takes_the_same_options_of_a_recipe(name: str) -> None:
    taken = {each.name: (each.opts, each.required, each.default) for each in load_command(name).params}
    assert {key: taken.pop(key) for key in OF_A_RECIPE} == OF_A_RECIPE
    assert set(taken) == ITS_OWN.get(name, set())


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_mistake_gets_one_line_and_status_1(run: Run, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    ran = run(*words, "--artifacts", tmp_path)
    assert ran.status == 1
    assert message in ran.said
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_ctrl_c_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Build, "evaluation", property(interrupted))
    ran = run("evaluate", "digits", "--artifacts", tmp_path)
    assert ran.status == 130
    assert "the same command goes on from there" in ran.said


def test_two_runs_in_one_directory_are_kept_apart(run: Run, tmp_path: Path) -> None:
    other = Build(read_recipe("digits"), tmp_path, Console(io.StringIO(), io.StringIO()))
    with other.store.locked():
        ran = run("fit", "digits", "--artifacts", tmp_path)
    assert ran.status == 1
    assert "another process" in ran.said


def test_evaluation_goes_to_a_file_whole_or_not_at_all(
    run: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_commands, "read_recipe", lambda *_, **__: toy_recipe())
    artifacts = bundle.parents[1]
    (tmp_path / "file").write_text("")
    ran = run("evaluate", "toy", "--artifacts", artifacts, "--output", tmp_path / "file" / "x.json")
    assert ran.status == 1
    assert "cannot write" in ran.said
    ran = run("evaluate", "toy", "--artifacts", artifacts, "--output", tmp_path / "out.json")
    assert ran.status == 0
    assert json.loads((tmp_path / "out.json").read_text())["n_trials"] == len(list(toy_recipe().detector.configs()))
