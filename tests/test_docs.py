"""The documents are a test: their blocks run, and what they name is what the code has, no more and no less."""

import ast
import dataclasses
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import uvicorn
from pydantic_core import PydanticUndefined

import modeguard.detector
from modeguard.detector import FEATURES, DetectorConfig, FitSet, fit, to_pixels
from modeguard.detector.questions import QUESTIONS, Curves
from modeguard.detector.scorers import SCORERS, NeighborsOptions
from modeguard.offline.attacks import ATTACKS, Fgsm, Misclassified, run_attack
from modeguard.offline.cli import COMMANDS, app, load_command
from modeguard.offline.cli import main as command_line
from modeguard.offline.data import DATASETS, DataConfig, SplitConfig, load_dataset
from modeguard.offline.evaluation import EvaluationConfig
from modeguard.offline.recipe import (
    AttackPlan,
    ClassifierSection,
    InputSection,
    TemplateConfig,
    read_recipe,
    shipped_recipes,
)
from modeguard.offline.training import TrainingConfig, train_classifier
from modeguard.offline.tuning import DetectorGrid
from modeguard.service import ENV_PREFIX, Settings, create_app
from modeguard.service.api import DetectResponse, ImageVerdict, LossCurve, ModelDescription, ProblemDetails
from modeguard.service.http import INTERNAL, INVALID_REQUEST, PROBLEMS
from modeguard.templates_store import choose_templates
from modeguard.templates_store.bundles import read_bundle, write_bundle
from modeguard.templates_store.classifiers import ClassifierSpec, architecture_forms
from modeguard.templates_store.images import InputSpec

ROOT = Path(__file__).resolve().parent.parent
DOCS = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for file in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
}
README, RECIPES = DOCS["README.md"], DOCS["docs/recipes.md"]
METHOD, HTTP_API, OPERATIONS = DOCS["docs/method.md"], DOCS["docs/http-api.md"], DOCS["docs/operations.md"]
ADDRESS = "http://127.0.0.1:8000"
URN = "urn:modeguard:problem:"
REQUIRED = object()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a document in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def blocks_of_all(language: str) -> list[Any]:
    named = ((f"{name}-{k}", block) for name, text in DOCS.items() for k, block in enumerate(blocks(text, language)))
    return [pytest.param(block, id=name) for name, block in named]


def shell_lines(*beginning: str) -> list[Any]:
    """Words of the lines of all shell blocks that begin so, without variables that are set before the command."""
    lines = (line for text in DOCS.values() for block in blocks(text, "sh") for line in block.splitlines())
    commands = [re.sub(rf"^({ENV_PREFIX}\w+=\S+ )+", "", line) for line in dict.fromkeys(lines)]
    split = [shlex.split(command) for command in commands]
    return [pytest.param(words, id=" ".join(words)) for words in split if words[: len(beginning)] == list(beginning)]


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}$\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {heading!r}"
    return found[1]


def column(text: str, pattern: str) -> list[Any]:
    """What the first cells of table rows hold, and the second ones if the pattern has a group for them."""
    return re.findall(rf"^\| {pattern} \|", text, re.MULTILINE)


def defaults_of(record: Any) -> dict[str, object]:
    """Keys and defaults of a dataclass."""
    defaults = {}
    for field in dataclasses.fields(record):
        factory: Any = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        defaults[field.name] = REQUIRED if default is dataclasses.MISSING else default
    return defaults


def meant_by(text: str) -> object:
    """The value that a column of defaults means."""
    if text in ("required", "–"):
        return {"required": REQUIRED, "–": None}[text]
    literal = text.strip("`")
    return float(Fraction(literal)) if "/" in literal else tomllib.loads(f"value = {literal}")["value"]


def as_list(value: object) -> object:
    return [as_list(each) for each in value] if isinstance(value, tuple) else value


# blocks that run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as `make demo` leaves it, with a bundle made in a second, and the images of the README."""
    directory = tmp_path_factory.mktemp("docs")
    data = load_dataset(DataConfig("digits", train_fraction=0.5))
    spec, training = ClassifierSpec("digits-cnn", 10, (1, 8, 8), (0.3,), (0.38,)), TrainingConfig(epochs=3)
    trained = train_classifier(spec, data.train, data.test, training, checkpoint=directory / "checkpoint").classifier
    templates = choose_templates(
        trained, data.train.images, data.train.labels, n_templates=1, max_loss=10, missing="abstain"
    )
    natural = to_pixels(data.test.images[:200])
    goal = Misclassified(trained, data.test.labels[:200])
    attacked = run_attack(Fgsm(epsilon=0.1), goal, natural, batch_size=200, generator=torch.Generator())
    reference = FitSet(torch.cat([natural, attacked.images]), torch.arange(400) >= 200)
    config = DetectorConfig(questions={"curves": Curves((0.0, 0.5, 1.0))}, scorer=NeighborsOptions(n_neighbors=5))
    write_bundle(
        directory / "artifacts/digits/bundle",
        name="digits",
        detector=fit(config, trained, templates, reference, to_pixels(data.test.images[200:300])),
        classifier=trained,
        class_names=data.class_names,
        input_spec=InputSpec((1, 8, 8)),
        seeds={},
        measured={},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        run_python(blocks(README, "python")[0], directory)
    return directory


@pytest.fixture(scope="module")
def url(place: Path) -> Iterator[str]:
    """The service with that bundle, on a free loopback port."""
    path = place / "artifacts/digits/bundle"
    service = create_app(Settings.model_validate({"bundle": path}), read_bundle(path, dtype="float32"))
    server = uvicorn.Server(uvicorn.Config(service, port=0, ws="none", log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    for name in ("NO_PROXY", "no_proxy"):  # a proxy of the environment must not be asked for the loopback address
        monkeypatch.setenv(name, "*")
    return place


def run_python(code: str, directory: Path) -> None:
    (directory / "block.py").write_text(code, encoding="utf-8")
    runpy.run_path(str(directory / "block.py"))


def test_the_first_example_gives_a_verdict(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = blocks(README, "python")[1]
    assert len(example.splitlines()) == 6
    run_python(example, here)
    assert re.fullmatch(r"tensor\(\[\d\]\) (tensor\(\[[\d.e-]+\].*\) ){2}tensor.*\n", capsys.readouterr().out)


def test_the_client_gets_a_verdict(here: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    client = blocks(README, "python")[2]
    assert ADDRESS in client
    run_python(client.replace(ADDRESS, url), here)
    assert re.search(r"^(adversarial|natural) [\d.]+$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("block", blocks(RECIPES, "python"))
def test_the_examples_of_the_recipes_write_their_files(block: str, here: Path) -> None:
    run_python(block, here)
    (written,) = re.findall(r'"(model\.\w+)"', block)
    assert (here / written).stat().st_size > 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("words", shell_lines("curl"))
def test_curl_gets_verdicts(words: list[str], here: Path, url: str) -> None:
    assert any(word.startswith(ADDRESS) for word in words)
    command = [*(word.replace(ADDRESS, url) for word in words), "--silent", "--fail-with-body"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = DetectResponse.model_validate_json(done.stdout)
    assert len(answer.results) == sum("@" in word for word in words)
    assert all((result.curve is not None) == ("curve=true" in words[-1]) for result in answer.results)


@pytest.mark.parametrize("words", shell_lines("modeguard", "detect"))
def test_the_shell_judges_the_images(
    words: list[str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        command_line()
    assert not ended.value.code
    assert "3.png" in capsys.readouterr().out


@pytest.mark.parametrize("text", blocks_of_all("toml"))
def test_a_recipe_is_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.toml", environment={}).name == tomllib.loads(text)["name"]


@pytest.mark.parametrize("text", blocks_of_all("json"))
def test_an_answer_has_the_form_of_the_schemas(text: str) -> None:
    answer = json.loads(text)
    kind: Any = DetectResponse if "results" in answer else ProblemDetails if "type" in answer else ImageVerdict
    assert set(answer) <= set(kind.model_fields)
    kind.model_validate(answer)


# commands that would take long, or change the machine, are not run: what they name must exist


@pytest.mark.parametrize("words", shell_lines())
def test_a_command_is_one_that_there_is(words: list[str]) -> None:
    tool, *arguments = words
    assert tool in {"modeguard", "make", "curl", "pip", "docker", "python", "."}
    if tool == "make":
        assert set(arguments) <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    elif tool == "python":
        assert arguments == ["-m", "modeguard.service"]
    elif tool == "modeguard":
        understand(*arguments)


def understand(name: str, *arguments: str) -> None:
    """Let the command line read a command, without doing it; an unknown command, option or setting raises."""
    command = load_command(name)
    if arguments != ("--help",):
        parameters = command.make_context(name, list(arguments)).params
        shipped = parameters["recipe"] if parameters.get("recipe") in shipped_recipes() else "digits"
        read_recipe(shipped, settings=parameters.get("settings") or (), environment={})


def test_the_options_in_the_text_exist_and_every_command_is_there() -> None:
    commands: list[Any] = [typer.main.get_command(app), *map(load_command, COMMANDS)]
    known = {option for each in commands for p in each.params for option in p.opts}
    text = "\n".join(DOCS.values())
    assert set(re.findall(r"`(--[a-z-]+)", text)) <= known | {"--help", "--build-arg"}
    assert [name for name in COMMANDS if f"`{name}`" not in text] == []


# names that the documents and the code share


KEYS = {
    "Top level": {"name": REQUIRED, "seed": 0},
    "`[data]`": defaults_of(DataConfig),
    "`[split]`": defaults_of(SplitConfig),
    "`[classifier]`": defaults_of(ClassifierSpec) | defaults_of(ClassifierSection),
    "`[training]`": defaults_of(TrainingConfig),
    "`[input]`": defaults_of(InputSection),
    "`[templates]`": defaults_of(TemplateConfig),
    "`[attacks.NAME]`": {"kind": REQUIRED, "attack": None} | defaults_of(AttackPlan) | {"attack": None},
    **{f"`{name}`": defaults_of(attack) for name, attack in ATTACKS.items()},
    "`[detector]`": defaults_of(DetectorGrid),
    "`[evaluation]`": defaults_of(EvaluationConfig),
}
NOT_IN_THE_FILE = {"spec", "kind"}


@pytest.mark.parametrize("heading", KEYS)
def test_the_keys_of_a_recipe_are_documented_with_their_defaults(heading: str) -> None:
    documented = dict(column(section(RECIPES, heading), r"`(\w+)` \| ([^|]+)"))
    real = {key: as_list(default) for key, default in KEYS[heading].items() if key not in NOT_IN_THE_FILE}
    assert {key: meant_by(text) for key, text in documented.items()} == real


def test_every_name_of_a_table_is_documented() -> None:
    fields = [f"results[].{name}" for name in ImageVerdict.model_fields]
    fields += [f"results[].curve.{name}" for name in LossCurve.model_fields]
    fields += [*ModelDescription.model_fields, "target_fpr", "model.name", "model.version"]
    of_recipes = [*FEATURES, *ATTACKS, *DATASETS, *architecture_forms(), *shipped_recipes()]
    of_method = [*QUESTIONS, *SCORERS]
    pages = ((of_recipes, RECIPES), (fields, HTTP_API), (shipped_recipes(), README), (of_method, METHOD))
    for names, text in pages:
        assert [name for name in names if f"`{name}`" not in text] == []


def test_families_and_public_names_are_the_ones_that_there_are() -> None:
    assert set(column(section(METHOD, "Feature families"), r"`(\w+)`(?: \|[^|]*){2}")) == set(FEATURES)
    cells = column(section(METHOD, "Public API of `detector`"), "(`.*?)")
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == set(modeguard.detector.__all__)


def test_settings_are_the_ones_that_there_are_with_their_defaults() -> None:
    real = {}
    for name, field in Settings.model_fields.items():
        default = "–" if field.default in (None, ()) else f"`{field.default}`"
        real[f"{ENV_PREFIX}{name.upper()}"] = "required" if field.default is PydanticUndefined else default
    assert dict(column(section(OPERATIONS, "Settings"), rf"`({ENV_PREFIX}\w+)` \| (\S+)")) == real
    known = set(real) | {"MODEGUARD_DATA", "MODEGUARD_WEIGHTS"}  # the command line's
    assert set(re.findall(rf"{ENV_PREFIX}[A-Z_]*[A-Z]", "\n".join(DOCS.values()))) <= known


def test_problems_reasons_and_endpoints_are_the_ones_that_there_are() -> None:
    problems = {problem.slug: str(problem.status) for problem in (*PROBLEMS.values(), INTERNAL, INVALID_REQUEST)}
    assert dict(column(HTTP_API, rf"`{URN}([\w-]+)` \| (\d+)")) == problems
    reasons = (ProblemDetails.model_fields["reason"].description or "").removeprefix("invalid-image: ")
    assert set(column(HTTP_API.partition("Reasons of")[2], r"`(\w+)`")) == set(re.split(", | or ", reasons))
    paths = create_app(Settings.model_validate({"bundle": ROOT})).openapi()["paths"]
    endpoints = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert set(column(HTTP_API, r"`([A-Z]+ /[\w/]+)`")) == endpoints


@pytest.mark.parametrize("name", DOCS)
def test_files_functions_and_links_lead_somewhere(name: str) -> None:
    files = r"`((?:detector|templates_store|offline|service|tests|benchmarks|docs)/[\w./-]*)"
    for file in re.findall(files, DOCS[name]):
        is_to_be = file.endswith("/NAME.py") or file.startswith("benchmarks/results")
        assert is_to_be or (ROOT / file).exists(), file
    for file, function in re.findall(r"(\w[\w/]*/\w+\.py):(\w+)", DOCS[name]):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        defined = {node.name for node in tree if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        defined |= {ast.unparse(node.target) for node in tree if isinstance(node, ast.AnnAssign)}
        assert function in defined, f"{file}:{function}"
    for file, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", DOCS[name]):
        target = (ROOT / name).parent / file if file else ROOT / name
        assert target.is_file(), file
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, anchor


def test_the_results_have_their_place_and_the_changelog_this_version() -> None:
    assert README.count("<!-- results:start -->\n") == README.count("\n<!-- results:end -->") == 1
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", DOCS["CHANGELOG.md"], re.MULTILINE)
