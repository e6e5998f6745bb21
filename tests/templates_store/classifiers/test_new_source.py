"""A source by somebody who has read only CONTRIBUTING.md: one file, one line, and a bundle can hold its classifiers."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modeguard.detector import DetectorConfig, FitSet, detect, fit, to_pixels
from modeguard.detector.questions import Curves
from modeguard.detector.scorers import NeighborsOptions
from modeguard.templates_store.bundles import read_bundle
from modeguard.templates_store.classifiers import (
    ClassifierError,
    ClassifierSpec,
    Trust,
    architecture_forms,
    build_classifier,
    check_classifier,
    load_classifier,
    parse_architecture,
    save_weights,
)
from modeguard.templates_store.classifiers.sources import SOURCES
from modeguard.templates_store.templates import choose_templates
from tests.templates_store.bundles.toy_bundle import write

SPEC = ClassifierSpec("brightness:mean", 3, (1, 8, 8), (0.0,), (1.0,))
LEVELS = (0.4, 0.5, 0.6)


class BrightnessClassifier:
    """The class is the nearest of some levels of brightness; neither a network nor a program."""

    def __init__(self, spec: ClassifierSpec, levels: Tensor) -> None:
        self.spec = spec
        self.n_classes = spec.n_classes
        self.input_shape = spec.input_shape
        self.compute_dtype = torch.float32
        self.levels = levels

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = -100 * (images.mean(dim=(1, 2, 3))[:, None] - self.levels).abs()
        return logits


@dataclass(frozen=True, slots=True)
class BrightnessSource:
    """Levels of brightness in a JSON file."""

    named: str = "STATISTIC"
    suffix: str = ".json"

    def open(
        self,
        name: str,
        spec: ClassifierSpec,
        content: bytes,
        *,
        origin: Path,
        dtype: str,
        device: torch.device,
        trust: Trust,
    ) -> BrightnessClassifier:
        if name != "mean" or dtype == "bfloat16":
            raise ClassifierError(f"{origin}: only the mean in float32 is known, got {name!r} in {dtype}")
        return BrightnessClassifier(spec, torch.tensor(json.loads(content), device=device))

    def save(self, classifier: BrightnessClassifier) -> bytes:
        return json.dumps(classifier.levels.tolist()).encode()


@pytest.fixture(autouse=True)
def one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "brightness", BrightnessSource())


@pytest.fixture
def levels(tmp_path: Path) -> Path:
    (tmp_path / "levels.json").write_text(json.dumps(LEVELS))
    return tmp_path / "levels.json"


def test_a_recipe_can_name_it_at_once() -> None:
    assert parse_architecture("brightness:mean").kind == "brightness"
    assert "brightness:STATISTIC" in architecture_forms()
    with pytest.raises(ClassifierError, match="did you mean brightness:STATISTIC"):
        parse_architecture("brightnes")


def test_it_is_loaded_checked_and_saved_again(levels: Path, tmp_path: Path) -> None:
    classifier = load_classifier(SPEC, levels)
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    check_classifier(classifier, images)
    save_weights(classifier, tmp_path / "again.json")
    assert torch.equal(load_classifier(SPEC, tmp_path / "again.json")(images), classifier(images))
    with pytest.raises(ClassifierError, match=r"levels\.json: only the mean"):
        load_classifier(SPEC, levels, dtype="bfloat16")


def test_it_cannot_be_trained() -> None:
    with pytest.raises(ClassifierError, match=r"loaded from a \.json file, never built"):
        build_classifier(SPEC)


def test_a_bundle_holds_it(levels: Path, tmp_path: Path, image_bytes: Tensor) -> None:
    classifier, pixels = load_classifier(SPEC, levels), to_pixels(image_bytes)
    labels = classifier(pixels).argmax(dim=1)
    templates = choose_templates(classifier, image_bytes, labels, n_templates=1, max_loss=10.0, missing="abstain")
    fit_set = FitSet(pixels[:100], torch.arange(100) % 2 == 0)
    config = DetectorConfig(questions={"curves": Curves((0.0, 0.5, 1.0))}, scorer=NeighborsOptions(n_neighbors=3))
    made = fit(config, classifier, templates, fit_set, pixels[100:])
    write(tmp_path / "bundle", classifier, made)
    assert json.loads((tmp_path / "bundle" / "classifier.json").read_text()) == pytest.approx(LEVELS)
    read = read_bundle(tmp_path / "bundle")
    expected = detect(made, classifier, pixels).score
    torch.testing.assert_close(detect(read.detector, read.classifier, pixels).score, expected)
