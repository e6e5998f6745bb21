"""The work of the pipeline's steps: each takes what it needs and returns a record of tensors that is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from modeguard.detector import Classifier, ClassTemplates, Leaf, Sliced, join, to_pixels, to_tensors
from modeguard.detector.questions import AnyQuestion, Observation, observation_from_tensors, observe
from modeguard.offline.attacks import Attack, Misclassified, run_attack
from modeguard.offline.console import Console
from modeguard.offline.data import ImageDataset, ImageRoles, LabelledImages, SplitConfig, deal_roles
from modeguard.offline.pipeline.artifacts import ArtifactEntry
from modeguard.offline.pipeline.parts import Part, WorkEngine, all_parts, parts_of
from modeguard.offline.recipe import AttackPlan, TemplateConfig
from modeguard.offline.training import EpochRecord, TrainingConfig, TrainingError, train_classifier
from modeguard.templates_store import choose_templates
from modeguard.templates_store.classifiers import ClassifierSpec, save_weights
from modeguard.templates_store.classifiers.sources import StoredClassifier

IMAGES_PER_PART = 256


@dataclass(frozen=True, slots=True, eq=False)
class Attacked:
    """One attack on some of the sources.

    Attributes:
        images: (n, c, h, w) float32 pixels, of the first n sources.
        is_successful: (n,) bool, the classifier is wrong about the attacked image.
        distances: (n,) sizes of the perturbations in the attack's norm.
    """

    images: Annotated[Tensor, Leaf("n c h w", torch.float32)]
    is_successful: Annotated[Tensor, Leaf("n", torch.bool)]
    distances: Annotated[Tensor, Leaf("n", torch.float32)]

    def __len__(self) -> int:
        return len(self.images)


def train_weights(
    spec: ClassifierSpec,
    config: TrainingConfig,
    dataset: ImageDataset,
    path: Path,
    *,
    console: Console,
    device: torch.device,
) -> None:
    """Train a classifier, or go on where an earlier training stopped, and write its weights to `path`.

    Raises:
        TrainingError: see `train_classifier`; also if the weights cannot be written.
    """

    def tell(epoch: EpochRecord) -> None:
        console.note(
            f"epoch {epoch.epoch} of {config.n_epochs}: loss {epoch.loss:.4f}, "
            f"test accuracy {epoch.test_accuracy:.4f}, {epoch.duration_s:.1f} s"
        )

    with console.progress("training the classifier", total=config.n_epochs * len(dataset.train.labels)) as progress:
        result = train_classifier(
            spec,
            dataset.train,
            dataset.test,
            config,
            checkpoint=path.with_suffix(".checkpoint"),
            device=device,
            on_epoch=tell,
            on_images=progress.advance,
        )
    try:
        save_weights(result.classifier, path)
    except OSError as error:
        raise TrainingError(
            f"the weights {path} cannot be written ({error.strerror or error}); the training is kept: make room, and "
            "run the same command again"
        ) from error


def pick_templates(
    classifier: StoredClassifier,
    config: TemplateConfig,
    dataset: ImageDataset,
    *,
    n_pool: int,
    seed: int,
    console: Console,
    device: torch.device,
) -> ClassTemplates:
    """Choose templates from `n_pool` training images, all of them if it is 0."""
    train = dataset.train
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(seed))
    pool = order[: n_pool or len(order)].sort().values
    with console.progress("choosing templates", total=len(pool)) as progress:
        return choose_templates(
            classifier,
            train.images[pool],
            train.labels[pool],
            n_templates=config.n_templates,
            max_loss=config.max_loss,
            missing=config.missing,
            class_names=dataset.class_names,
            device=device,
            on_rows=progress.advance,
        )


def deal_test_images(
    classifier: StoredClassifier,
    config: SplitConfig,
    test: LabelledImages,
    *,
    seed: int,
    console: Console,
    device: torch.device,
) -> ImageRoles:
    """Classify the test images and deal them out."""
    is_correct, sliced = [], Sliced(classifier)
    with console.progress("classifying test images", total=len(test.labels)) as progress:
        for images, labels in zip(test.images.split(IMAGES_PER_PART), test.labels.split(IMAGES_PER_PART), strict=True):
            with torch.inference_mode():
                logits = sliced(to_pixels(images).to(device))
            is_correct.append(logits.argmax(dim=1).cpu() == labels)
            progress.advance(len(labels))
    return deal_roles(config, torch.cat(is_correct), seed=seed)


@dataclass(frozen=True, slots=True, eq=False)
class AttackWork:
    """Attacks a part of some images.

    Attributes:
        attack: with its parameters.
        classifier: on `device`; it is right about all the images.
        images: (n, c, h, w) uint8.
        labels: (n,) int64.
        device: where it is done.
    """

    attack: Attack
    classifier: Classifier
    images: Tensor
    labels: Tensor
    device: torch.device

    def __call__(self, part: Part) -> dict[str, Tensor]:
        """See `Work`."""
        result = run_attack(
            self.attack,
            Misclassified(self.classifier, self.labels[part.rows].to(self.device)),
            to_pixels(self.images[part.rows]).to(self.device),
            batch_size=part.n_images,
            generator=torch.Generator(self.device).manual_seed(part.seed),
            is_met=torch.zeros(part.n_images, dtype=torch.bool, device=self.device),
        )
        return to_tensors(Attacked(result.images, result.is_successful, result.distances))


def attack_images(
    plan: AttackPlan,
    classifier: StoredClassifier,
    images: Tensor,
    labels: Tensor,
    entry: ArtifactEntry,
    *,
    seed: str,
    engine: WorkEngine,
    console: Console,
    device: torch.device,
) -> Attacked:
    """Attack images (n, c, h, w) uint8 that the classifier is right about, a batch of the plan a part."""
    work = AttackWork(plan.attack, classifier, images, labels, device)
    parts = parts_of(len(images), plan.batch_size, seed)
    with console.progress(f"{entry.step}: attacking", total=len(images)) as progress:
        kept = all_parts(work, parts, entry, engine=engine, on_images=progress.advance)
    return join([Attacked(**tensors) for tensors in kept])


@dataclass(frozen=True, slots=True, eq=False)
class ObserveWork:
    """Asks the classifier about a part of some images.

    Attributes:
        questions: by name.
        classifier: on `device`.
        pixels: (n, c, h, w).
        templates: on `device`.
        device: where it is done.
    """

    questions: Mapping[str, AnyQuestion]
    classifier: Classifier
    pixels: Tensor
    templates: ClassTemplates
    device: torch.device

    def __call__(self, part: Part) -> dict[str, Tensor]:
        """See `Work`."""
        with torch.inference_mode():
            images = self.pixels[part.rows].to(self.device)
            return to_tensors(observe(self.questions, self.classifier, images, self.templates))


def observe_images(
    questions: Mapping[str, AnyQuestion],
    classifier: StoredClassifier,
    pixels: Tensor,
    templates: ClassTemplates,
    entry: ArtifactEntry,
    *,
    seed: str,
    engine: WorkEngine,
    console: Console,
    device: torch.device,
) -> Observation:
    """Observe images of pixels (n, c, h, w), part by part."""
    work = ObserveWork(questions, classifier, pixels, templates, device)
    parts = parts_of(len(pixels), IMAGES_PER_PART, seed)
    with console.progress(f"{entry.step}: loss curves", total=len(pixels)) as progress:
        kept = all_parts(work, parts, entry, engine=engine, on_images=progress.advance)
    return join([observation_from_tensors(questions, tensors) for tensors in kept])
