"""A recipe says what it means or is refused with the place, what was expected, and what is allowed."""

import dataclasses
from pathlib import Path

import pytest

from modeguard.offline.attacks import ATTACKS, CarliniWagner, Pgd
from modeguard.offline.pipeline import canonical_json
from modeguard.offline.recipe import Recipe, RecipeError, read_recipe, shipped_recipes

SMALLEST = """
name = "small"
[data]
dataset = "digits"
[split]
n_calibration = 19
n_sources = 50
[classifier]
architecture = "digits-cnn"
n_classes = 10
input_shape = [1, 8, 8]
mean = [0.3]
std = [0.4]
[templates]
n_templates = 2
[attacks.fgsm]
[detector]
n_templates = [1, 2]
"""

NOTHING_SET: dict[str, str] = {}


def write(directory: Path, text: str) -> Path:
    path = directory / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


def read(directory: Path, *settings: str, text: str = SMALLEST) -> Recipe:
    return read_recipe(write(directory, text), settings=settings, environment=NOTHING_SET)


# --- what is shipped


@pytest.mark.parametrize("name", ["digits", "cifar10-resnet20", "cifar10-vgg16", "imagenet-squeezenet"])
def test_a_shipped_recipe_is_read_by_its_name(name: str) -> None:
    recipe = read_recipe(name, environment=NOTHING_SET)
    assert recipe.name == name
    assert name in shipped_recipes()


@pytest.mark.parametrize("name", ["cifar10-resnet20", "cifar10-vgg16"])
def test_the_cifar_recipes_follow_the_published_protocol(name: str) -> None:
    recipe = read_recipe(name, environment=NOTHING_SET)
    assert set(recipe.attacks) == {"fgsm", "bim", "pgd", "deepfool", "cw"}
    for plan in recipe.attacks.values():
        shortened = {"n_steps": 1000, "n_search_steps": 9} if plan.kind == "cw" else {}
        assert dataclasses.replace(plan.attack, **shortened) == ATTACKS[plan.kind]()  # type: ignore[type-var]
    assert (recipe.split.validation_fraction, recipe.split.test_fraction, recipe.split.seed) == (0.16, 0.20, 42)
    assert all((plan.n_sources or recipe.split.n_sources) >= 500 for plan in recipe.attacks.values())


def test_every_shipped_recipe_file_has_the_name_that_it_says() -> None:
    for name in shipped_recipes():
        assert read_recipe(name, environment=NOTHING_SET).name == name


# --- reading


def test_the_sections_become_records(tmp_path: Path) -> None:
    text = SMALLEST + '[attacks.strong]\nattack = "pgd"\nepsilon = 1\nn_sources = 20\nbatch_size = 7\n'
    recipe = read(tmp_path, text=text)
    assert recipe.classifier.spec.input_shape == (1, 8, 8)
    assert recipe.input_spec.shape == (1, 8, 8)
    assert recipe.attacks["strong"].attack == Pgd(epsilon=1.0)
    assert (recipe.attacks["strong"].kind, recipe.attacks["strong"].batch_size) == ("pgd", 7)
    assert recipe.attacks["strong"].n_sources == 20
    assert recipe.detector.n_templates == (1, 2)
    assert recipe.weights_path is None


def test_one_text_gives_one_hashable_record(tmp_path: Path) -> None:
    assert read(tmp_path) == read(tmp_path)
    assert canonical_json(read(tmp_path)) == canonical_json(read(tmp_path))
    assert canonical_json(read(tmp_path)) != canonical_json(read(tmp_path, "attacks.fgsm.epsilon=0.031"))


WRONG = [
    # what is set, what the message says
    ("split.n_sourcess=3", r"\[split\] n_sourcess is unknown, did you mean n_sources\?; allowed are .*n_calibration"),
    ("naem=1", r"naem is unknown, did you mean name\?; allowed are attacks, classifier, data"),
    ("split.n_sources='many'", r"\[split\] n_sources: expected a whole number, got the text 'many'"),
    ("split.n_sources=5.5", r"\[split\] n_sources: expected a whole number, got the number 5.5"),
    ("split.n_sources=true", r"\[split\] n_sources: expected a whole number, got true"),
    ("split.n_sources=0", r"\[split\] .*at least 1"),
    ("split.validation_fraction=0.9", r"\[split\] validation_fraction and test_fraction"),
    ("split.n_sources=3", r"\[split\] 3 sources cannot be split into test fold and parts that leave something to fit"),
    ("split=3", r"\[split\]: expected a table, got the number 3"),
    ("data.dataset='cifra10'", r"\[data\] dataset: 'cifra10' is unknown, did you mean cifar10\?; allowed are .*digits"),
    ("split=[3]", r"\[split\]: expected a table, got the list \[3\]"),
    ("data.root=1", r"\[data\] root: expected a path as text, got the number 1"),
    ("data.root=''", r"\[data\] root: expected a path as text, got the text ''"),
    ("data.root=1979-05-27", r"\[data\] root: expected a path as text, got datetime.date\(1979, 5, 27\)"),
    ("data.download=1", r"\[data\] download: expected true or false, got the number 1"),
    (
        "classifier.architecture='digit-cnn'",
        r"\[classifier\] architecture: .*did you mean digits-cnn\?.*torchvision",
    ),
    (
        "classifier.dtype='float16'",
        r"\[classifier\] dtype: the text 'float16' is unknown.*allowed are auto, float32",
    ),
    ("classifier.input_shape=[8, 8]", r"\[classifier\] input_shape: expected a list of 3, got the list \[8, 8\]"),
    ("classifier.input_shape='1, 8, 8'", r"\[classifier\] input_shape: expected a list of 3, got the text '1, 8, 8'"),
    ("classifier.spec={}", r"\[classifier\] spec is unknown; allowed are architecture, dtype"),
    ("classifier.mean=[0.3, 'x']", r"\[classifier\] mean\[1\]: expected a finite number, got the text 'x'"),
    ("classifier.std=[0]", r"\[classifier\] std is positive"),
    ("classifier.std=[nan]", r"\[classifier\] std\[0\]: expected a finite number, got the number nan"),
    ("classifier.widht=3", r"\[classifier\] widht is unknown.*; allowed are architecture, dtype, .*weights_root"),
    ("training.epochs=0", r"\[training\] epochs is at least 1, got 0"),
    ("templates.missing='skip'", r"\[templates\] missing: .*allowed are refuse, abstain"),
    ("templates.max_loss=0", r"\[templates\] .*max_loss above 0"),
    (
        "templates.n_templates=1",
        r"\[detector\] n_templates asks for up to 2, more than the \[templates\] n_t",
    ),
    (
        "attacks.fgsm.epsilom=0.1",
        r"\[attacks.fgsm\] epsilom is unknown, did you mean epsilon\?; allowed are attack",
    ),
    ("attacks.fgsm.epsilon='big'", r"\[attacks.fgsm\] epsilon: expected a finite number, got the text 'big'"),
    ("attacks.fgsm.epsilon=8", r"\[attacks.fgsm\] epsilon is a number above 0 and at most 1, got 8"),
    (
        "attacks.fgsm.n_steps=3",
        r"\[attacks.fgsm\] n_steps is unknown.*; allowed are attack, batch_size, epsilon",
    ),
    ("attacks.fgsm.kind='pgd'", r"\[attacks.fgsm\] kind is unknown; allowed are attack, batch_size"),
    ("attacks.fgsm.norm='l2'", r"\[attacks.fgsm\] norm is unknown; allowed are attack, batch_size"),
    ("attacks.fgsm.n_sources=51", r"\[attacks.fgsm\] n_sources is 51, but \[split\] has only 50"),
    ("attacks.fgsm.batch_size=0", r"\[attacks.fgsm\] batch_size and n_sources are at least 1"),
    ("attacks.pdg.epsilon=0.1", r"\[attacks.pdg\] 'pdg' is no attack, did you mean pgd\?; allowed are fgsm, bim, pgd"),
    ("attacks.mine.attack=[]", r"\[attacks.mine\] \[\] is no attack"),
    ("attacks.calibration.attack='pgd'", r"\[attacks.calibration\] has the name of a set of natural images"),
    ("attacks.'a/b'.attack='pgd'", r"\[attacks.'a/b'\]: expected a name of letters, digits"),
    ("attacks.cw=3", r"\[attacks.cw\]: expected a table, got the number 3"),
    ("attacks={}", r"\[attacks\] needs at least one attack"),
    ("attacks=3", r"\[attacks\]: expected a table for each attack"),
    ("detector.features=[['loss_curv']]", r"\[detector\] features has unknown names \['loss_curv'\].*'loss_curve'"),
    ("detector.features=['loss_curve']", r"\[detector\] features\[0\]: expected a list, got the text 'loss_curve'"),
    ("detector.metric=['cosine']", r"\[detector\] metric\[0\]: .*allowed are euclidean, manhattan"),
    ("detector.n_points=[]", r"\[detector\] n_points is a list of at least one choice"),
    (
        "detector.target_fpr=0.01",
        r"\[split\] n_calibration is 19, but \[detector\] target_fpr = 0.01 needs .* 99",
    ),
    ("detector.target_fpr=1", r"\[detector\] .*target_fpr"),
    ("evaluation.confidence=1", r"\[evaluation\] .*confidence within \(0, 1\)"),
    ("input.resize_to=4", r"\[input\] resize_to is at least"),
    ("input.shape=[1, 8, 8]", r"\[input\] shape is unknown; allowed are allow_resize, resize_to"),
    ("name='../digits'", r"name: expected letters, digits"),
    ("seed=-1", r"seed: expected 0 to"),
]


@pytest.mark.parametrize(("setting", "message"), WRONG, ids=[setting for setting, _ in WRONG])
def test_what_is_wrong_is_refused_with_place_and_way_out(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=rf"small\.toml: {message}"):
        read(tmp_path, setting)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("data", '[data]\ndataset = "digits"\n'),
        ("dataset", 'dataset = "digits"\n'),
        ("attacks", "[attacks.fgsm]\n"),
        ("n_sources", "n_sources = 50\n"),
        ("mean", "mean = [0.3]\n"),
        ("mean, std", "mean = [0.3]\nstd = [0.4]\n"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, name: str, line: str) -> None:
    with pytest.raises(RecipeError, match=rf"needs {name}; allowed are"):
        read(tmp_path, text=SMALLEST.replace(line, ""))


def test_a_recipe_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'digit', did you mean digits\?; shipped are cifar10-resnet20, "):
        read_recipe("digit")
    with pytest.raises(RecipeError, match=r"there is no recipe .*none\.toml"):
        read_recipe(tmp_path / "none.toml")


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(shipped_recipes()["digits"], encoding="utf-8-sig")
    assert read_recipe(path, environment={}) == read_recipe("digits", environment={})


def test_what_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"small\.toml: not TOML: .*line 1"):
        read(tmp_path, text="name = \n")
    with pytest.raises(RecipeError, match=r"small\.toml: not TOML: .*4300 digits"):
        read(tmp_path, text="seed = " + 5000 * "9")
    with pytest.raises(RecipeError, match=r"small\.toml: not TOML: "):
        read(tmp_path, text=SMALLEST + "[data]\ndataset = 'twice'\n")
    (tmp_path / "small.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="is not UTF-8 text; expected a TOML file"):
        read_recipe(tmp_path / "small.toml")
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        read_recipe(tmp_path)


# --- settings and places


def test_settings_are_toml_values_and_plain_words_are_text(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        "attacks.cw.n_steps=150",
        "attacks.cw.abort_early = false",
        "classifier.dtype=bfloat16",
        "data.root=some/where",
        'detector.features=[["barrier", "sorted_logits"]]',
    )
    assert recipe.attacks["cw"].attack == CarliniWagner(n_steps=150, abort_early=False)
    assert recipe.classifier.dtype == "bfloat16"
    assert recipe.data.root == Path("some/where")
    assert recipe.detector.features == (("barrier", "sorted_logits"),)
    assert recipe.attacks["fgsm"] == read(tmp_path).attacks["fgsm"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed", "expected SECTION.KEY=VALUE"),
        ("=3", "expected SECTION.KEY=VALUE"),
        ("data..root=3", "expected SECTION.KEY=VALUE"),
        ("seed=", "is not a TOML value"),
        ("seed=[1", "is not a TOML value"),
        ("seed=" + 5000 * "9", "is not a TOML value"),
        ("seed=1\nname='other'", "expected one value"),
        ("name.first=3", "name is a value, not a table"),
    ],
)
def test_a_malformed_setting_is_refused(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read(tmp_path, setting)


def test_roots_come_from_the_environment_and_give_way_to_the_command_line(tmp_path: Path) -> None:
    environment = {"MODEGUARD_DATA": "from_environment", "MODEGUARD_WEIGHTS": "weights"}
    recipe = read_recipe(write(tmp_path, SMALLEST), environment=environment)
    assert recipe.data.root == Path("from_environment")
    assert recipe.classifier.weights_root == Path("weights")
    other = recipe.with_overrides(seed=3, data_root=Path("from_option"))
    assert (other.seed, other.data.root, other.classifier.weights_root) == (3, Path("from_option"), Path("weights"))
    assert other.with_overrides() == other


def test_weights_are_looked_up_as_they_are_and_under_the_root(tmp_path: Path) -> None:
    recipe = read(tmp_path, "classifier.weights=net.safetensors").with_overrides(weights_root=tmp_path / "weights")
    with pytest.raises(RecipeError, match=r"\[classifier\] weights: no file at net\.safetensors or .*--weights"):
        _ = recipe.weights_path
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "net.safetensors").touch()
    assert recipe.weights_path == tmp_path / "weights" / "net.safetensors"
    absolute = read(tmp_path, f"classifier.weights='{tmp_path / 'weights' / 'net.safetensors'}'")
    assert absolute.weights_path == tmp_path / "weights" / "net.safetensors"
