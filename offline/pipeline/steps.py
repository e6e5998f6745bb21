"""The work of the pipeline's steps: each takes what it needs and returns the tensors that are kept of it.

Steps that run for long keep every part as soon as it is done, so that an interrupted run goes on with the next part.
"""

from pathlib import Path

import torch
from torch import Tensor

from modeguard.detector import ClassTemplates, DetectorConfig, batched_logits, observe, to_pixels
from modeguard.offline.attacks import run_attack
from modeguard.offline.console import Console
from modeguard.offline.data.records import ImageDataset, LabelledImages
from modeguard.offline.data.roles import SplitConfig, deal_roles
from modeguard.offline.pipeline import observations
from modeguard.offline.pipeline.artifacts import ArtifactEntry
from modeguard.offline.recipe.sections import AttackPlan, TemplateConfig
from modeguard.offline.seeds import seed_of
from modeguard.offline.training.training import EpochRecord, TrainingConfig, TrainingError, train_classifier
from modeguard.templates_store.classifiers import ClassifierSpec, StoredClassifier, save_weights
from modeguard.templates_store.templates import choose_templates

IMAGES_PER_SHARD = 256


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
) -> dict[str, Tensor]:
    """Choose templates from `n_pool` training images, all of them if it is 0."""
    train = dataset.train
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(seed))
    pool = order[: n_pool or len(order)].sort().values
    with console.progress("choosing templates", total=len(pool)) as progress:
        templates = choose_templates(
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
    return {
        "classes": templates.classes,
        "images": templates.images,
        "losses": templates.losses,
        "margins": templates.margins,
    }


def deal_test_images(
    classifier: StoredClassifier,
    config: SplitConfig,
    test: LabelledImages,
    *,
    seed: int,
    console: Console,
    device: torch.device,
) -> dict[str, Tensor]:
    """Classify the test images and deal them out."""
    is_correct = []
    with console.progress("classifying test images", total=len(test.labels)) as progress:
        for images, labels in zip(
            test.images.split(IMAGES_PER_SHARD), test.labels.split(IMAGES_PER_SHARD), strict=True
        ):
            with torch.inference_mode():
                logits = batched_logits(classifier, to_pixels(images).to(device))
            is_correct.append(logits.argmax(dim=1).cpu() == labels)
            progress.advance(len(labels))
    return deal_roles(config, torch.cat(is_correct), seed=seed).to_tensors()


def attack_images(
    classifier: StoredClassifier,
    plan: AttackPlan,
    images: Tensor,
    labels: Tensor,
    entry: ArtifactEntry,
    *,
    seed: str,
    console: Console,
    device: torch.device,
) -> dict[str, Tensor]:
    """Attack images (n, c, h, w) uint8, a batch a part; each part has a seed of its own."""
    parts = torch.arange(len(images)).split(plan.batch_size)
    shards = entry.shards(len(parts))
    missing = shards.missing()
    with console.progress(f"{entry.step}: attacking", total=len(images)) as progress:
        for number, rows in enumerate(parts):
            if number in missing:
                result = run_attack(
                    plan.attack,
                    classifier,
                    to_pixels(images[rows]).to(device),
                    labels[rows].to(device),
                    rows_per_call=plan.batch_size,
                    generator=torch.Generator(device).manual_seed(seed_of(f"{seed}/{number}")),
                )
                kept = {
                    "images": result.images,
                    "is_successful": result.is_successful,
                    "distances": result.distances,
                }
                shards.write_shard(number, kept)
            progress.advance(len(rows))
    tensors = [shards.read_shard(number).tensors for number in range(len(parts))]
    return {name: torch.cat([part[name] for part in tensors]) for name in tensors[0]}


def observe_images(
    classifier: StoredClassifier,
    config: DetectorConfig,
    templates: ClassTemplates,
    pixels: Tensor,
    entry: ArtifactEntry,
    *,
    console: Console,
    device: torch.device,
) -> dict[str, Tensor]:
    """Observe images of pixels (n, c, h, w), part by part."""
    parts = pixels.split(IMAGES_PER_SHARD)
    shards = entry.shards(len(parts))
    missing = shards.missing()
    far_ends = templates.to(device)
    with console.progress(f"{entry.step}: loss curves", total=len(pixels)) as progress:
        for number, images in enumerate(parts):
            if number in missing:
                with torch.inference_mode():
                    observation = observe(config, classifier, images.to(device), far_ends)
                shards.write_shard(number, observations.to_tensors(observation))
            progress.advance(len(images))
    kept = [observations.from_tensors(shards.read_shard(number).tensors) for number in range(len(parts))]
    return observations.to_tensors(observations.join(kept))
