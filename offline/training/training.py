"""Training a classifier: SGD with Nesterov momentum, one learning-rate schedule, crops, flips, pruning and averaging.

No label smoothing, mixup or adversarial training: they change the loss that is minimised, and with it the landscape
that the method measures. Pruning does not bias that loss (`pruning`), and averaging the weights of further
epochs (Izmailov et al. 2018) only looks for a flatter minimum of it. All that is random comes from the seed and the
number of the epoch, so a training that goes on from a checkpoint ends with the weights of one that was never
interrupted, bit for bit on one machine.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import update_bn

from modeguard.detector import to_pixels
from modeguard.offline.data import LabelledImages
from modeguard.offline.seeds import seed_of
from modeguard.offline.training.augmentation import augment
from modeguard.offline.training.checkpoints import Checkpoint, TrainingError, read_checkpoint, write_checkpoint
from modeguard.offline.training.config import SCHEDULES, TrainingConfig, learning_rate_at
from modeguard.offline.training.pruning import choose_visit
from modeguard.templates_store.classifiers import (
    TRUST_EVERYTHING,
    ClassifierSpec,
    NetworkClassifier,
    build_classifier,
    resolve_dtype,
)

__all__ = [
    "SCHEDULES",
    "EpochRecord",
    "TrainingConfig",
    "TrainingError",
    "TrainingResult",
    "train_classifier",
]

_TEST_BATCH = 512
_STEPS_BETWEEN_CHECKS = 50  # reading the loss makes a GPU wait


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One pass over the training images.

    Attributes:
        epoch: counted from 1.
        learning_rate: of the last step.
        loss: mean cross-entropy of the augmented training images, as they were met; an estimate where some were
            left out.
        test_accuracy: on the test images after the epoch, and after the last one of the finished classifier, which may
            be an average; reported, never chosen by.
        duration_s: wall time, with the test.
    """

    epoch: int
    learning_rate: float
    loss: float
    test_accuracy: float
    duration_s: float


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """The classifier after the last epoch, in evaluation mode, and what happened on the way."""

    classifier: NetworkClassifier
    history: tuple[EpochRecord, ...]


def train_classifier(
    spec: ClassifierSpec,
    train: LabelledImages,
    test: LabelledImages,
    config: TrainingConfig,
    *,
    checkpoint: Path,
    device: str | torch.device = "cpu",
    on_epoch: Callable[[EpochRecord], object] = lambda _: None,
    on_images: Callable[[int], object] = lambda _: None,
) -> TrainingResult:
    """Train a classifier from random weights, or go on where an earlier call with the same arguments stopped.

    Args:
        spec: a factory that it names is called: training runs the code that the caller asks for.
        train: images to learn from.
        test: images whose accuracy is reported after each epoch.
        config: how.
        checkpoint: file that is written after each epoch, and read first if it is there.
        device: where to train.
        on_epoch: called after each epoch, and once for each that the checkpoint has already.
        on_images: called after each step with the number of images, and after each epoch with the number of those
            that it left out.

    Raises:
        TrainingError: if the images do not fit the classifier, the loss is not finite any more, or the checkpoint
            belongs to another training, is damaged or cannot be written.
        ClassifierError: if the classifier cannot be built.
    """
    _check_images(spec, train, test)
    device = torch.device(device)
    run = _Run(spec, train, test, config, device)
    history: list[EpochRecord] = []
    kept = read_checkpoint(checkpoint, run.belongs_to)
    if kept is not None:
        history = run.restore(kept, checkpoint)
    for record in history:
        on_epoch(record)
    for epoch in range(len(history) + 1, config.n_epochs + 1):
        history.append(run.epoch(epoch, on_images))
        write_checkpoint(checkpoint, run.checkpoint(history))
        on_epoch(history[-1])
    return TrainingResult(run.classifier.eval().requires_grad_(requires_grad=False), tuple(history))


def _check_images(spec: ClassifierSpec, train: LabelledImages, test: LabelledImages) -> None:
    for part, images in (("training", train), ("test", test)):
        shape, largest = tuple(images.images.shape[1:]), int(images.labels.max())
        if shape != spec.input_shape or largest >= spec.n_classes:
            raise TrainingError(
                f"the classifier takes images {spec.input_shape} of classes 0 to {spec.n_classes - 1}, but the {part} "
                f"images are {shape} with classes up to {largest}; correct input_shape, n_classes or the data set"
            )
    if len(train) < 2:
        raise TrainingError("at least 2 training images are needed, got 1")


class _Run:
    """The state of a training between two epochs."""

    def __init__(
        self,
        spec: ClassifierSpec,
        train: LabelledImages,
        test: LabelledImages,
        config: TrainingConfig,
        device: torch.device,
    ) -> None:
        self.config = config
        self.device = device
        self.train = LabelledImages(train.images.to(device), train.labels.to(device))
        self.test = LabelledImages(test.images.to(device), test.labels.to(device))
        self.autocast_dtype = resolve_dtype(config.precision, device)
        with _seeded(config.seed, 0, device):
            self.classifier = build_classifier(spec, trust=TRUST_EVERYTHING).to(device)
        self.parameters = dict(self.classifier.network.named_parameters())
        self.optimizer = torch.optim.SGD(
            self.parameters.values(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=True,
        )
        self.last_losses = torch.full((len(train),), math.inf, device=device)
        self.average: dict[str, Tensor] = {}
        self.is_mirrored_first = torch.rand(len(train), generator=self._generator(0), device=device) < 0.5
        described = {"spec": spec, "config": config, "data": _fingerprint(train)}
        self.belongs_to: dict[str, Any] = json.loads(json.dumps(described, default=dataclasses.asdict))

    def epoch(self, epoch: int, on_images: Callable[[int], object]) -> EpochRecord:
        """Learn from every training image once, then test."""
        start = time.perf_counter()
        with _seeded(self.config.seed, epoch, self.device):  # for dropout
            loss = self._learn(epoch, on_images)
            if epoch > self.config.epochs:
                self._average(epoch)
            accuracy = self._test_accuracy()
        rate: float = self.optimizer.param_groups[0]["lr"]
        return EpochRecord(epoch, rate, loss, accuracy, time.perf_counter() - start)

    def _learn(self, epoch: int, on_images: Callable[[int], object]) -> float:
        generator = self._generator(epoch)
        done = (epoch - 1) / self.config.epochs
        is_scheduled = epoch <= self.config.epochs
        end = epoch / self.config.epochs if is_scheduled else 0.0  # averaging, too, evens out what is left out
        visit = choose_visit(self.last_losses, self.config.prune_ratio, end, generator)
        n_steps = self._n_batches(len(visit.rows))
        batches = zip(visit.rows.tensor_split(n_steps), visit.weights.tensor_split(n_steps), strict=True)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        self.classifier.train()
        for number, (rows, weights) in enumerate(batches):
            rate = learning_rate_at(done + (number + 0.5) / n_steps / self.config.epochs, self.config)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            is_mirrored = self.is_mirrored_first[rows] ^ (epoch % 2 == 0)
            pixels = augment(self.train.images[rows], self.config.augmentation, is_mirrored, generator)
            losses = self._step(pixels, self.train.labels[rows], weights)
            self.last_losses[rows] = losses
            total += (losses * weights).double().sum()
            if number % _STEPS_BETWEEN_CHECKS == 0 or number + 1 == n_steps:
                self._check_finite(total, epoch, rate)
            on_images(len(rows))
        if n_left_out := len(self.train) - len(visit.rows):
            on_images(n_left_out)
        return float(total / visit.weights.sum())

    def _step(self, pixels: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            logits = self.classifier(pixels)
        losses = F.cross_entropy(logits, labels, reduction="none")
        (losses * weights).mean().backward()
        self.optimizer.step()
        return losses.detach()

    def _average(self, epoch: int) -> None:
        """Take the weights into the average; after the last epoch the average becomes the classifier's weights."""
        n_averaged = epoch - self.config.epochs
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                self.average.setdefault(name, torch.zeros_like(parameter)).lerp_(parameter, 1 / n_averaged)
            if epoch < self.config.n_epochs:
                return
            for name, parameter in self.parameters.items():
                parameter.copy_(self.average[name])
        with self._autocast():  # the statistics of batch norms belong to other weights
            update_bn(self._all_augmented(epoch), self.classifier)

    def _all_augmented(self, epoch: int) -> Iterator[Tensor]:
        generator = self._generator(epoch)
        order = torch.randperm(len(self.train), generator=generator, device=self.device)
        for rows in order.tensor_split(self._n_batches(len(order))):
            is_mirrored = self.is_mirrored_first[rows] ^ (epoch % 2 == 0)
            yield augment(self.train.images[rows], self.config.augmentation, is_mirrored, generator)

    def _n_batches(self, n_images: int) -> int:
        return min(math.ceil(n_images / self.config.batch_size), n_images // 2)  # no batch of one

    def _generator(self, epoch: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed_of(f"{self.config.seed}/{epoch}"))

    def _check_finite(self, total: Tensor, epoch: int, rate: float) -> None:
        if not math.isfinite(float(total)):
            raise TrainingError(
                f"the loss is not finite any more in epoch {epoch} at learning rate {rate:.3g}; lower learning_rate, "
                "raise warmup_fraction, or use precision float32. The checkpoint of the epoch before is kept"
            )

    def _test_accuracy(self) -> float:
        self.classifier.eval()
        n_right = torch.zeros((), dtype=torch.int64, device=self.device)
        with torch.no_grad(), self._autocast():
            for images, labels in zip(
                self.test.images.split(_TEST_BATCH), self.test.labels.split(_TEST_BATCH), strict=True
            ):
                n_right += (self.classifier(to_pixels(images)).argmax(dim=1) == labels).sum()
        return int(n_right) / len(self.test)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast_dtype == torch.bfloat16)

    def checkpoint(self, history: list[EpochRecord]) -> Checkpoint:
        """All that the next epoch depends on."""
        momentum = {
            name: self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.parameters.items()
            if parameter in self.optimizer.state  # a parameter that no image reaches has no gradient
        }
        records = [dataclasses.asdict(record) for record in history]
        return Checkpoint(self.belongs_to, records, self.classifier.weights(), momentum, self.last_losses, self.average)

    def restore(self, kept: Checkpoint, path: Path) -> list[EpochRecord]:
        """Go back to the state of a checkpoint, and tell its epochs."""
        try:
            self.classifier.network.load_state_dict(kept.network)
            self._fill(self.last_losses, kept.last_losses)
            for name, value in kept.momentum.items():
                momentum = torch.empty_like(self.parameters[name])
                self._fill(momentum, value)
                self.optimizer.state[self.parameters[name]]["momentum_buffer"] = momentum
            if len(kept.history) > self.config.epochs:
                for name, parameter in self.parameters.items():
                    self.average[name] = torch.empty_like(parameter)
                    self._fill(self.average[name], kept.average[name])
            return [EpochRecord(**entries) for entries in kept.history]
        except (RuntimeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise TrainingError(
                f"{path} has other content than the training needs ({reason}); delete it to start from the beginning"
            ) from error

    @staticmethod
    def _fill(place: Tensor, value: Tensor) -> None:
        if place.shape != value.shape:
            raise RuntimeError(f"a tensor has the shape {tuple(value.shape)} instead of {tuple(place.shape)}")
        place.copy_(value)


@contextmanager
def _seeded(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators seeded for a while, and afterwards as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of(f"{seed}/{epoch}"))
        yield


def _fingerprint(images: LabelledImages) -> str:
    digest = hashlib.sha256(images.images.cpu().contiguous().numpy().tobytes())
    digest.update(images.labels.cpu().numpy().tobytes())
    return digest.hexdigest()
