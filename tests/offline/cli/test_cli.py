"""The command line: results, refusals in one line without a traceback, exit statuses."""

import io
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from modeguard.offline.cli import app as cli
from modeguard.offline.console import Console
from modeguard.offline.evaluation.results import evaluate, write_build
from modeguard.offline.pipeline.build import Build
from modeguard.templates_store.bundles.bundle import read_bundle
from tests.offline.toy_build import toy_recipe


class Ran:
    """What a command did."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    def run(*words: object) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(cli, "console", Console(out, err))
        monkeypatch.setattr(sys, "argv", ["modeguard", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        status = ended.value.code
        return Ran(status if isinstance(status, int) else 0, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = Build(toy_recipe(), tmp_path_factory.mktemp("cli"), Console(io.StringIO(), io.StringIO()))
    write_build(build, evaluate(build), build.store.root / "bundle")
    return build.store.root / "bundle"


@pytest.fixture
def digit(bundle: Path, tmp_path: Path) -> Path:
    Image.new("L", (8, 8), 128).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def flat(text: str) -> str:
    return " ".join(text.split())


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
    "no bundle": (("detect", "a.png", "--bundle", "nowhere"), "nowhere is not a bundle"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_mistake_gets_one_line_and_status_1(run, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    place = ["--artifacts", tmp_path] if words[0] != "detect" else []
    ran = run(*words, *place)
    assert ran.status == 1
    assert message in flat(ran.err)
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_wrong_usage_is_status_2(run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", "digits", "--bogus").status == 2
    assert "No such option" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["train", "templates", "attack", "fit", "evaluate", "report", "build", "detect", "serve", "demo"]
)
def test_every_command_has_help(run, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(command, "--help").status == 0
    assert "Usage" in capsys.readouterr().out


def test_serve_runs_no_code_from_where_the_user_stands(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty entry of PYTHONPATH, a separator at its end, would be the current directory."""
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, words, environment: started.append((words, environment)))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert run("serve", "--bundle", tmp_path, "--port", 0).status == 0
    ((words, environment),) = started
    assert words[1:] == ["-P", "-m", "modeguard.service"]
    assert environment["PYTHONPATH"] == str(Path(cli.__file__).parents[1])
    assert (environment["MODEGUARD_BUNDLE"], environment["MODEGUARD_PORT"]) == (str(tmp_path), "0")


def test_detect_prints_a_verdict_a_file_and_goes_on_after_a_bad_one(
    run, bundle: Path, digit: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("no image")
    ran = run(
        "detect", tmp_path / "text.png", tmp_path / "missing.png", digit, "--bundle", bundle, "--json", "--curves"
    )
    text, missing, verdict = (json.loads(line) for line in ran.out.splitlines())
    assert ran.status == 1
    assert "PNG" in text["reason"]
    assert "No such file" in missing["reason"]
    assert text["is_adversarial"] is missing["is_adversarial"] is None
    assert isinstance(verdict["is_adversarial"], bool)
    assert 0 <= verdict["score"] <= 1
    assert 0 < verdict["p_value"] <= 1
    assert len(verdict["losses"][0]) == len(verdict["alphas"]) == 5


def test_detect_takes_only_the_bundle_of_a_digest(run, bundle: Path, digit: Path) -> None:
    digest = read_bundle(bundle).digest
    assert run("detect", digit, "--bundle", bundle, "--bundle-digest", digest).status == 0
    refused = run("detect", digit, "--bundle", bundle, "--bundle-digest", "0" * 64)
    assert refused.status == 1
    assert "is another bundle than expected" in flat(refused.err)


def test_detect_warns_of_a_type_that_the_detector_was_not_calibrated_in(run, bundle: Path, digit: Path) -> None:
    assert "calibrated in" not in run("detect", digit, "--bundle", bundle).err
    warned = flat(run("detect", digit, "--bundle", bundle, "--dtype", "bfloat16").err)
    assert "calibrated in float32, but the classifier computes in bfloat16 here" in warned
    assert "the false-positive rate is not guaranteed" in warned


def test_detect_table_names_the_verdict(run, bundle: Path, digit: Path) -> None:
    ran = run("detect", digit, "--bundle", bundle)
    assert ran.status == 0
    assert "natural" in ran.out or "adversarial" in ran.out


def test_ctrl_c_says_how_to_go_on(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "evaluate", interrupted)
    ran = run("evaluate", "digits", "--artifacts", tmp_path)
    assert ran.status == 130
    assert "the same command goes on from there" in flat(ran.err)


def test_two_runs_in_one_directory_are_kept_apart(run, tmp_path: Path) -> None:
    other = Build(cli.read_recipe("digits"), tmp_path, Console(io.StringIO(), io.StringIO()))
    with other.store.locked():
        ran = run("fit", "digits", "--artifacts", tmp_path)
    assert ran.status == 1
    assert "another process" in flat(ran.err)


def test_evaluation_goes_to_a_file_whole_or_not_at_all(
    run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "read_recipe", lambda *_, **__: toy_recipe())
    artifacts = bundle.parents[1]
    (tmp_path / "file").write_text("")
    ran = run("evaluate", "toy", "--artifacts", artifacts, "--output", tmp_path / "file" / "x.json")
    assert ran.status == 1
    assert "cannot write" in flat(ran.err)
    ran = run("evaluate", "toy", "--artifacts", artifacts, "--output", tmp_path / "out.json")
    assert ran.status == 0
    assert json.loads((tmp_path / "out.json").read_text())["n_trials"] == len(list(toy_recipe().detector.configs()))
