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

from modeguard.detector import (
    ClassTemplates,
    Detector,
    DetectorConfig,
    fit_observed,
    from_tensors,
    pick,
    to_device,
    to_pixels,
    to_tensors,
)
from modeguard.detector.questions import Observation, observation_from_tensors
from modeguard.detector.scorers import References
from modeguard.offline.console import Console
from modeguard.offline.data import Folds, ImageDataset, ImageRoles, deal_folds, load_dataset
from modeguard.offline.evaluation import BOOTSTRAP_SEED, Evaluation, HeldOut, HeldOutAttack, evaluate
from modeguard.offline.pipeline import steps
from modeguard.offline.pipeline.artifacts import ArtifactEntry, ArtifactStore
from modeguard.offline.pipeline.keys import artifact_key
from modeguard.offline.pipeline.parts import WorkEngine, in_turn
from modeguard.offline.pipeline.sets import ObservedSets
from modeguard.offline.pipeline.steps import Attacked
from modeguard.offline.recipe import CALIBRATION_SET, EXTRA_SET, SOURCE_SET, Recipe
from modeguard.offline.report import Example, Facts, cases_of, write_report
from modeguard.offline.tuning import Fitted, Rotation, Trial, best_trial, run_trials
from modeguard.templates_store.bundles import write_bundle
from modeguard.templates_store.classifiers import (
    TRUST_EVERYTHING,
    check_classifier,
    check_pixel_scale,
    load_classifier,
    resolve_dtype,
)
from modeguard.templates_store.classifiers.sources import StoredClassifier

VERSIONS = {"train": 1, "classifier": 1, "templates": 1, "roles": 2, "attack": 1, "observe": 2}
"""Raise a step's number when its code gives another output for the same options."""

_CHECKED_IMAGES = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Kept(Generic[T]):
    """The output of a step and the key that it is kept under."""

    key: str
    value: T


class Build:
    """The steps of one recipe.

    Args:
        recipe: what to build.
        artifacts: directory of all recipes' artefacts; this recipe's are in a directory of its name.
        console: where progress is told.
        device: what the classifier runs on.
        engine: does the work of long steps, part by part.
    """

    def __init__(
        self,
        recipe: Recipe,
        artifacts: Path,
        console: Console,
        device: str | torch.device = "cpu",
        *,
        engine: WorkEngine = in_turn,
    ) -> None:
        self.recipe = recipe
        self.console = console
        self.device = torch.device(device)
        self.engine = engine
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
            lambda: to_tensors(
                steps.pick_templates(
                    self.exact_classifier,
                    self.recipe.templates,
                    self.dataset,
                    n_pool=self.recipe.split.n_template_pool,
                    seed=self.recipe.seed,
                    console=self.console,
                    device=self.device,
                )
            ),
        )
        return Kept(entry.key, from_tensors(ClassTemplates, tensors))

    @cached_property
    def roles(self) -> Kept[ImageRoles]:
        """Which test images play which part."""
        split = self.recipe.split
        options = (split.n_calibration, split.n_sources, split.n_extra, self.recipe.seed)
        entry = self._entry("roles", "roles", options, [self.weights.key, self._data_key])
        tensors = self._tensors(
            entry,
            lambda: to_tensors(
                steps.deal_test_images(
                    self.exact_classifier,
                    split,
                    self.dataset.test,
                    seed=self.recipe.seed,
                    console=self.console,
                    device=self.device,
                )
            ),
        )
        return Kept(entry.key, from_tensors(ImageRoles, tensors))

    def attacked(self, name: str) -> Kept[Attacked]:
        """The first sources under one of the recipe's attacks, by its name there."""
        if name not in self._attacked:
            plan = self.recipe.attacks[name]
            entry = self._entry("attack", f"attack-{name}", (plan, self.recipe.seed), [self.roles.key])
            sources = self.roles.value.sources[: plan.n_sources]
            tensors = self._tensors(
                entry,
                lambda: to_tensors(
                    steps.attack_images(
                        plan,
                        self.exact_classifier,
                        self.dataset.test.images[sources],
                        self.dataset.test.labels[sources],
                        entry,
                        seed=f"{self.recipe.seed}/{name}",
                        engine=self.engine,
                        console=self.console,
                        device=self.device,
                    )
                ),
            )
            self._attacked[name] = Kept(entry.key, from_tensors(Attacked, tensors))
        return self._attacked[name]

    def observed(self, name: str) -> Observation:
        """What the classifier says of a set of images: a natural one by its name, or one attack's by its own."""
        if name not in self._observed:
            upstream = self.attacked(name).key if name in self.recipe.attacks else self.roles.key
            dtype = str(resolve_dtype(self.recipe.classifier.dtype, self.device))
            questions, n_templates = self.recipe.detector.questions(), max(self.recipe.detector.n_templates)
            options = (questions, n_templates, dtype)
            entry = self._entry("observe", f"observe-{name}", options, [self.templates.key, upstream])
            tensors = self._tensors(
                entry,
                lambda: to_tensors(
                    steps.observe_images(
                        questions,
                        self.classifier,
                        self.pixels_of(name),
                        to_device(self.templates.value.first(n_templates), self.device),
                        entry,
                        seed=f"{self.recipe.seed}/observe/{name}",
                        engine=self.engine,
                        console=self.console,
                        device=self.device,
                    )
                ),
            )
            self._observed[name] = observation_from_tensors(questions, tensors)
        return self._observed[name]

    @cached_property
    def fitted(self) -> Fitted:
        """The detector: chosen by cross-validation, fitted on all but the test fold, calibrated."""
        grid, folds, sets = self.recipe.detector, self.folds, self.sets
        rotations = [
            Rotation(
                fit=sets.labelled(~folds.is_test & ~part),
                validation={name: sets.pairs(name, part) for name in self.recipe.attacks},
            )
            for part in folds.validation_parts
        ]
        trials: list[Trial] = []
        with self.console.progress("choosing the detector", total=grid.n_configs) as progress:
            for trial in run_trials(grid, rotations):
                trials.append(trial)
                progress.advance()
        best = best_trial(trials, grid.tolerance)
        references = self._references(best.config)
        return Fitted(self._fit(best.config, references), references, best, tuple(trials))

    def fit(self, config: DetectorConfig) -> Detector:
        """A detector fitted on all but the test fold, and calibrated.

        Args:
            config: one whose questions the recipe's grid covers.
        """
        return self._fit(config, self._references(config))

    @cached_property
    def folds(self) -> Folds:
        """What each source is for."""
        return deal_folds(self.recipe.split)

    @cached_property
    def sets(self) -> ObservedSets:
        """What the classifier says of sources, attacked sources and extra images."""
        return ObservedSets(
            sources=self.observed(SOURCE_SET),
            extra=self.observed(EXTRA_SET) if len(self.roles.value.extra) else None,
            attacked={name: self.attacked(name).value for name in self.recipe.attacks},
            adversarial={name: self.observed(name) for name in self.recipe.attacks},
        )

    @cached_property
    def held_out(self) -> HeldOut:
        """What the detector is measured on: the test fold."""
        is_test, sets = self.folds.is_test, self.sets
        labels = self.dataset.test.labels[self.roles.value.calibration]
        is_right = self.observed(CALIBRATION_SET).at_image.predicted == labels
        attacks = {}
        for name, plan in self.recipe.attacks.items():
            attacked = sets.attacked[name]
            distances = attacked.distances[attacked.is_successful]
            attacks[name] = HeldOutAttack(plan.attack.norm, len(attacked), distances, sets.pairs(name, is_test))
        return HeldOut(pick(sets.sources, is_test), attacks, float(is_right.double().mean()))

    @cached_property
    def evaluation(self) -> Evaluation:
        """The detector measured on the test fold, on pairs of successful attacks and their natural twins."""
        fitted, held_out = self.fitted, self.held_out
        with self.console.progress("evaluating", total=len(held_out.attacks)) as progress:
            return evaluate(fitted, held_out, self.recipe.evaluation, on_attack=progress.advance)

    def write_bundle(self, path: Path) -> str:
        """Write the bundle, and return its digest.

        Args:
            path: the bundle's directory.

        Raises:
            BundleError: see `write_bundle` of the bundles.
        """
        return write_bundle(
            path,
            name=self.recipe.name,
            detector=self.fitted.detector,
            classifier=self.classifier,
            class_names=self.dataset.class_names,
            input_spec=self.recipe.input_spec,
            seeds=self.seeds,
            measured=self.evaluation.to_dict(),
        )

    def write_report(self, path: Path, *, digest: str | None = None) -> None:
        """Write the HTML report; equal builds give equal files.

        Args:
            path: the file.
            digest: of the bundle that was written, if there is one.

        Raises:
            ReportError: if the disk refuses.
        """
        evaluation, data, spec = self.evaluation, self.dataset, self.recipe.classifier.spec
        with self.console.step("writing the report"):
            facts = Facts(
                name=self.recipe.name,
                dataset=data.name,
                n_train=len(data.train),
                n_test=len(data.test),
                class_names=data.class_names,
                architecture=spec.architecture,
                input_shape=spec.input_shape,
                tolerance=self.recipe.detector.tolerance,
                attacks={name: plan.attack for name, plan in self.recipe.attacks.items()},
                seeds=self.seeds,
                digest=digest,
            )
            cases = cases_of(self.fitted.detector, self.classifier, self.examples(), self.device)
            write_report(path, facts, self.recipe.evaluation, evaluation, self.fitted, self.held_out, cases)

    def examples(self) -> list[Example]:
        """An image of the test fold for each attack, with its adversarial twin.

        The k-th attack shows its k-th success: different images, and no picking by how well the detector does.
        """
        examples = []
        for number, (name, plan) in enumerate(self.recipe.attacks.items()):
            successes = self.sets.successes(name, self.folds.is_test).nonzero()[:, 0]
            row, attacked = successes[number % len(successes)], self.attacked(name).value
            source = self.roles.value.sources[row]
            examples.append(
                Example(
                    attack=name,
                    norm=plan.attack.norm,
                    distance=float(attacked.distances[row]),
                    label=int(self.dataset.test.labels[source]),
                    natural=to_pixels(self.dataset.test.images[source]),
                    adversarial=attacked.images[row],
                )
            )
        return examples

    @property
    def seeds(self) -> dict[str, int]:
        """Every seed that went in, by what it was for."""
        questions = self.fitted.detector.config.questions
        return {
            "recipe": self.recipe.seed,
            "data": self.recipe.data.seed,
            "folds": self.recipe.split.seed,
            "training": self.recipe.training.seed,
            "bootstrap": BOOTSTRAP_SEED,
            **{name: question.seed for name, question in questions.items() if hasattr(question, "seed")},
        }

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

    def _references(self, config: DetectorConfig) -> References:
        return self.sets.labelled(~self.folds.is_test).references(config)

    def _fit(self, config: DetectorConfig, references: References) -> Detector:
        templates = self.templates.value.first(config.n_templates)
        return fit_observed(config, templates, references, self.observed(CALIBRATION_SET))

    def _entry(self, step: str, name: str, options: object, upstream: Sequence[str]) -> ArtifactEntry:
        return self.store.entry(name, artifact_key(step, VERSIONS[step], options, upstream))

    @staticmethod
    def _tensors(entry: ArtifactEntry, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        kept = entry.read_if_intact()
        return kept.tensors if kept is not None else entry.write(make(), {}).tensors

    def _load_classifier(self, dtype: str) -> StoredClassifier:
        spec = self.recipe.classifier.spec
        return load_classifier(spec, self.weights.value, dtype=dtype, device=self.device, trust=TRUST_EVERYTHING)
