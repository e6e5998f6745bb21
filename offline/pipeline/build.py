"""The offline pipeline: from a recipe to a fitted detector, each step kept and redone only when it must be.

`Build` holds one step a property, in the order of the work; reading one runs, or reads back, what it needs. A step's
output is kept under the hash of everything that it depends on: its options, the version of its code, and the keys of
the steps that it reads.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from modeguard.detector import ClassTemplates, Detector, DetectorConfig, Observation, extract_features, to_pixels
from modeguard.detector.detect import detector_from_features
from modeguard.offline.console import Console
from modeguard.offline.data.datasets import ImageDataset, load_dataset
from modeguard.offline.data.roles import Folds, ImageRoles, deal_folds
from modeguard.offline.pipeline import observations, steps
from modeguard.offline.pipeline.artifacts import ArtifactEntry, ArtifactStore
from modeguard.offline.pipeline.keys import artifact_key
from modeguard.offline.recipe.recipe import Recipe
from modeguard.offline.recipe.sections import CALIBRATION, EXTRA, SOURCES
from modeguard.offline.tuning.trials import LabelledObservation, Rotation, Trial, best_trial, run_trials
from modeguard.templates_store.classifiers import (
    TRUST_EVERYTHING,
    StoredClassifier,
    check_classifier,
    check_pixel_scale,
    load_classifier,
    resolve_dtype,
)

__all__ = ["CALIBRATION", "EXTRA", "SOURCES", "VERSIONS", "Attacked", "Build", "Fitted", "Kept"]

VERSIONS = {"train": 1, "classifier": 1, "templates": 1, "roles": 2, "attack": 1, "observe": 1}
"""Raise a step's number when its code gives another output for the same options."""

_CHECKED_IMAGES = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Kept(Generic[T]):
    """The output of a step and the key that it is kept under."""

    key: str
    value: T


@dataclass(frozen=True, slots=True, eq=False)
class Attacked:
    """One attack on some of the sources.

    Attributes:
        source_rows: (n,) int64, which of the sources were attacked.
        images: (n, c, h, w) float32 pixels.
        is_successful: (n,) bool, the classifier is wrong about the attacked image.
        distances: (n,) sizes of the perturbations in the attack's norm.
    """

    source_rows: Tensor
    images: Tensor
    is_successful: Tensor
    distances: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """The detector that was chosen, and all that were tried."""

    detector: Detector
    best: Trial
    trials: tuple[Trial, ...]


class Build:
    """The steps of one recipe.

    Args:
        recipe: what to build.
        artifacts: directory of all recipes' artefacts; this recipe's are in a directory of its name.
        console: where progress is told.
        device: what the classifier runs on.
    """

    def __init__(self, recipe: Recipe, artifacts: Path, console: Console, device: str | torch.device = "cpu") -> None:
        self.recipe = recipe
        self.console = console
        self.device = torch.device(device)
        self.store = ArtifactStore(artifacts / recipe.name, warn=console.warn)
        self._attacked: dict[str, Kept[Attacked]] = {}
        self._observed: dict[str, Observation] = {}

    @cached_property
    def dataset(self) -> ImageDataset:
        """The images and labels."""
        with self.console.step(f"reading data set {self.recipe.data.dataset}"):
            return load_dataset(
                self.recipe.data, input_spec=self.recipe.input_spec, n_classes=self.recipe.classifier.spec.n_classes
            )

    @cached_property
    def weights(self) -> Kept[Path]:
        """File of the classifier's weights, the recipe's own or trained here; the key is of the file and the spec."""
        path = self.recipe.weights_path or self.train()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        # the normalisation is no part of the file, and another one makes another classifier
        return Kept(artifact_key("classifier", VERSIONS["classifier"], self.recipe.classifier.spec, [digest]), path)

    def train(self) -> Path:
        """Train the classifier, or go on where an earlier training stopped; the file of its weights."""
        spec, config = self.recipe.classifier.spec, self.recipe.training
        key = artifact_key("train", VERSIONS["train"], (spec, config), [self._data_key])
        path = self.store.root / f"train-{key[:12]}.safetensors"
        if not path.exists():
            steps.train_weights(spec, config, self.dataset, path, console=self.console, device=self.device)
        return path

    @cached_property
    def exact_classifier(self) -> StoredClassifier:
        """The classifier in float32, for attacks and for choosing images; checked for what the method needs."""
        classifier = self._load_classifier("float32")
        train = self.dataset.train
        some = torch.linspace(0, len(train.labels) - 1, min(_CHECKED_IMAGES, len(train.labels))).long()
        pixels = to_pixels(train.images[some]).to(self.device)
        with self.console.step("checking the classifier"):
            check_classifier(classifier, pixels)
            check_pixel_scale(classifier, pixels, train.labels[some].to(self.device))
        return classifier

    @cached_property
    def classifier(self) -> StoredClassifier:
        """The classifier in the recipe's precision, as a server runs it."""
        return self._load_classifier(self.recipe.classifier.dtype)

    @cached_property
    def templates(self) -> Kept[ClassTemplates]:
        """Known good training images of each class."""
        options = (self.recipe.templates, self.recipe.split.n_template_pool, self.recipe.seed)
        entry = self._entry("templates", "templates", options, [self.weights.key, self._data_key])
        tensors = self._tensors(
            entry,
            lambda: steps.pick_templates(
                self.exact_classifier,
                self.recipe.templates,
                self.dataset,
                n_pool=self.recipe.split.n_template_pool,
                seed=self.recipe.seed,
                console=self.console,
                device=self.device,
            ),
        )
        return Kept(
            entry.key,
            ClassTemplates(tensors["classes"], tensors["images"], tensors["losses"], tensors["margins"]),
        )

    @cached_property
    def roles(self) -> Kept[ImageRoles]:
        """Which test images play which part."""
        split = self.recipe.split
        options = (split.n_calibration, split.n_sources, split.n_extra, self.recipe.seed)
        entry = self._entry("roles", "roles", options, [self.weights.key, self._data_key])
        tensors = self._tensors(
            entry,
            lambda: steps.deal_test_images(
                self.exact_classifier,
                split,
                self.dataset.test,
                seed=self.recipe.seed,
                console=self.console,
                device=self.device,
            ),
        )
        return Kept(entry.key, ImageRoles(**tensors))

    def attacked(self, name: str) -> Kept[Attacked]:
        """The sources under one of the recipe's attacks, by its name there."""
        if name not in self._attacked:
            plan = self.recipe.attacks[name]
            entry = self._entry("attack", f"attack-{name}", (plan, self.recipe.seed), [self.roles.key])
            sources = self.roles.value.sources
            rows = torch.arange(min(plan.n_sources or len(sources), len(sources)))
            tensors = self._tensors(
                entry,
                lambda: steps.attack_images(
                    self.exact_classifier,
                    plan,
                    self.dataset.test.images[sources[rows]],
                    self.dataset.test.labels[sources[rows]],
                    entry,
                    seed=f"{self.recipe.seed}/{name}",
                    console=self.console,
                    device=self.device,
                ),
            )
            attacked = Attacked(rows, tensors["images"], tensors["is_successful"], tensors["distances"])
            self._attacked[name] = Kept(entry.key, attacked)
        return self._attacked[name]

    def observed(self, name: str) -> Observation:
        """What the classifier says of a set of images: CALIBRATION, SOURCES, EXTRA, or one attack's by its name."""
        if name not in self._observed:
            upstream = self.attacked(name).key if name in self.recipe.attacks else self.roles.key
            dtype = str(resolve_dtype(self.recipe.classifier.dtype, self.device))
            options = (self.recipe.detector.observed_options, dtype)
            entry = self._entry("observe", f"observe-{name}", options, [self.templates.key, upstream])
            tensors = self._tensors(
                entry,
                lambda: steps.observe_images(
                    self.classifier,
                    self.recipe.detector.widest(),
                    self.templates.value,
                    self.pixels_of(name),
                    entry,
                    console=self.console,
                    device=self.device,
                ),
            )
            self._observed[name] = observations.from_tensors(tensors)
        return self._observed[name]

    @cached_property
    def fitted(self) -> Fitted:
        """The detector: chosen by cross-validation, fitted on all but the test fold, calibrated."""
        grid, folds = self.recipe.detector, self.folds
        rotations = [
            Rotation(
                fit=self.labelled(~folds.is_test & ~part),
                validation={name: self.pairs(name, part) for name in self.recipe.attacks},
            )
            for part in folds.validation_parts
        ]
        trials: list[Trial] = []
        with self.console.progress("choosing the detector", total=grid.n_configs) as progress:
            for trial in run_trials(grid, rotations):
                trials.append(trial)
                progress.advance()
        best = best_trial(trials, grid.tolerance)
        return Fitted(self.fit(best.config), best, tuple(trials))

    def fit(self, config: DetectorConfig) -> Detector:
        """A detector fitted on all but the test fold, and calibrated.

        Args:
            config: one whose observations the recipe's grid covers.
        """
        references = self.labelled(~self.folds.is_test)
        return detector_from_features(
            config,
            self.templates.value.first(config.n_templates),
            extract_features(config, references.observation),
            references.is_adversarial,
            extract_features(config, self.observed(CALIBRATION)),
        )

    @cached_property
    def folds(self) -> Folds:
        """What each source is for."""
        return deal_folds(self.recipe.split)

    def successes(self, attack: str, among: Tensor) -> Tensor:
        """(n,) bool: images of `attacked(attack)` that fool the classifier, of sources `among` (n_sources,) bool."""
        attacked = self.attacked(attack).value
        return attacked.is_successful & among[attacked.source_rows]

    def pairs(self, attack: str, among: Tensor) -> LabelledObservation:
        """Natural twins, then adversarial images, of the attack's successes on sources `among` (n_sources,) bool."""
        kept = self.successes(attack, among)
        natural = observations.pick(self.observed(SOURCES), self.attacked(attack).value.source_rows[kept])
        adversarial = observations.pick(self.observed(attack), kept)
        n_pairs = int(kept.sum())
        return LabelledObservation(observations.join([natural, adversarial]), torch.arange(2 * n_pairs) >= n_pairs)

    def labelled(self, among: Tensor) -> LabelledObservation:
        """Every source `among` (n_sources,) bool, every successful attack on one, and the extra images, each once."""
        natural = [observations.pick(self.observed(SOURCES), among)]
        if len(self.roles.value.extra):
            natural.append(self.observed(EXTRA))
        adversarial = [
            observations.pick(self.observed(name), self.successes(name, among)) for name in self.recipe.attacks
        ]
        n_natural = sum(len(part.curves.predicted) for part in natural)
        joined = observations.join([*natural, *adversarial])
        return LabelledObservation(joined, torch.arange(len(joined.curves.predicted)) >= n_natural)

    def pixels_of(self, name: str) -> Tensor:
        """Pixels (n, c, h, w) of a set of images, by the names of `observed`."""
        if name in self.recipe.attacks:
            return self.attacked(name).value.images
        return to_pixels(self.dataset.test.images[getattr(self.roles.value, name)])

    @cached_property
    def _data_key(self) -> str:
        return hashlib.sha256(
            b"".join(
                repr(tuple(part.images.shape)).encode() + part.images.numpy().tobytes() + part.labels.numpy().tobytes()
                for part in (self.dataset.train, self.dataset.test)
            )
        ).hexdigest()

    def _entry(self, step: str, name: str, options: object, upstream: Sequence[str]) -> ArtifactEntry:
        return self.store.entry(name, artifact_key(step, VERSIONS[step], options, upstream))

    @staticmethod
    def _tensors(entry: ArtifactEntry, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        kept = entry.read_if_intact()
        return kept.tensors if kept is not None else entry.write(make(), {}).tensors

    def _load_classifier(self, dtype: str) -> StoredClassifier:
        spec = self.recipe.classifier.spec
        return load_classifier(spec, self.weights.value, dtype=dtype, device=self.device, trust=TRUST_EVERYTHING)
