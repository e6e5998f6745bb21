"""Training learns, augments as it says, and goes on after an interruption as if there had been none."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from modeguard.offline.data import DataConfig, LabelledImages, load_dataset
from modeguard.offline.training import EpochRecord, TrainingConfig, TrainingError, TrainingResult, train_classifier
from modeguard.offline.training.augmentation import Augmentation, augment
from modeguard.offline.training.pruning import Visit
from modeguard.templates_store.classifiers import ClassifierError, ClassifierSpec
from tests.offline.training.toy_training import (
    CONFIG,
    DROPOUT,
    NORM_AT_THE_END,
    SPEC,
    TEST,
    TRAIN,
    InterruptionError,
    is_equal,
    stop_after,
    toy_images,
    train,
    weights_of,
)


def test_a_network_learns(tmp_path: Path) -> None:
    records: list[EpochRecord] = []
    n_images: list[int] = []
    config = dataclasses.replace(CONFIG, epochs=15)
    result = train(tmp_path / "c", config, on_epoch=records.append, on_images=n_images.append)
    assert result.history == tuple(records)
    assert [record.epoch for record in records] == list(range(1, 16))
    assert records[-1].loss < records[0].loss / 2
    assert records[-1].test_accuracy >= 0.9
    assert sum(n_images) == 15 * 90
    assert max(n_images) - min(n_images) <= 1
    assert not result.classifier.training
    assert not any(parameter.requires_grad for parameter in result.classifier.parameters())


def test_the_reported_accuracy_is_that_of_the_classifier(tmp_path: Path) -> None:
    result = train(tmp_path / "c")
    predicted = result.classifier(TEST.images.float() / 255).argmax(dim=1)
    assert result.history[-1].test_accuracy == (predicted == TEST.labels).double().mean().item()


def one_step(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: Tensor,
    weights: Tensor,
    images: LabelledImages = TRAIN,
    learning_rate: float = 0.05,
) -> TrainingResult:
    """One epoch of one step on a given visit."""
    monkeypatch.setattr("modeguard.offline.training.training.choose_visit", lambda *_: Visit(rows, weights))
    config = TrainingConfig(epochs=1, batch_size=90, learning_rate=learning_rate, precision="float32")
    return train(path, config, train=images)


def test_images_count_by_their_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two for one half of the images and nothing for the other is one for the first half alone."""
    weights = torch.cat([torch.full((45,), 2.0), torch.zeros(45)])
    weighted = weights_of(one_step(tmp_path / "a", monkeypatch, torch.arange(90), weights))
    alone = weights_of(one_step(tmp_path / "b", monkeypatch, torch.arange(45), torch.ones(45)))
    both = weights_of(one_step(tmp_path / "c", monkeypatch, torch.arange(90), torch.ones(90)))
    for name, value in alone.items():
        torch.testing.assert_close(weighted[name], value)
    assert not torch.allclose(both["classifier.2.weight"], alone["classifier.2.weight"], atol=1e-5)


def test_the_loss_told_is_that_of_all_images_also_where_some_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image counts for its twin that is left out, the others for themselves."""
    rows = torch.cat([torch.zeros(1, dtype=torch.int64), torch.arange(89)])
    images = LabelledImages(TRAIN.images[rows], TRAIN.labels[rows])
    weights = torch.cat([torch.full((1,), 2.0), torch.ones(88)])
    whole = one_step(tmp_path / "a", monkeypatch, torch.arange(90), torch.ones(90), images, learning_rate=1e-9)
    pruned = one_step(tmp_path / "b", monkeypatch, torch.arange(1, 90), weights, images, learning_rate=1e-9)
    assert pruned.history[0].loss == pytest.approx(whole.history[0].loss, rel=1e-5)


def test_an_image_is_mirrored_in_every_other_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[Tensor] = []

    def watched(images: Tensor, augmentation: Augmentation, is_mirrored: Tensor, generator: torch.Generator) -> Tensor:
        masks.append(is_mirrored)
        return augment(images, augmentation, is_mirrored, generator)

    monkeypatch.setattr("modeguard.offline.training.training.augment", watched)
    monkeypatch.setattr(
        "modeguard.offline.training.training.choose_visit", lambda *_: Visit(torch.arange(90), torch.ones(90))
    )
    train(tmp_path / "c", dataclasses.replace(CONFIG, epochs=3, batch_size=90))
    assert torch.equal(masks[0], ~masks[1])
    assert torch.equal(masks[0], masks[2])
    assert 20 < int(masks[0].sum()) < 70


@pytest.mark.parametrize("batch_size", [2, 16])
def test_pruned_epochs_are_shorter_and_tell_all_images(tmp_path: Path, batch_size: int) -> None:
    """Also with batch norm on single pixels, which cannot learn from a batch of one image."""
    n_images: list[int] = []
    config = dataclasses.replace(CONFIG, epochs=8, batch_size=batch_size, prune_ratio=0.9)
    train(tmp_path / "c", config, NORM_AT_THE_END, on_images=n_images.append)
    assert sum(n_images) == 8 * len(TRAIN)
    assert max(n_images) > batch_size + 1  # the images that an epoch left out, told at once


@pytest.mark.parametrize("spec", [SPEC, DROPOUT])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path: Path, spec: ClassifierSpec, precision: Any) -> None:
    config = dataclasses.replace(CONFIG, precision=precision, rotation_degrees=10.0, prune_ratio=0.5)
    whole = train(tmp_path / "whole", config, spec)
    with pytest.raises(InterruptionError):
        train(tmp_path / "c", config, spec, on_epoch=stop_after(2))
    torch.manual_seed(99)  # what the process drew meanwhile must not matter
    seen: list[EpochRecord] = []
    resumed = train(tmp_path / "c", config, spec, on_epoch=seen.append)
    assert is_equal(weights_of(resumed), weights_of(whole))
    assert [record.epoch for record in seen] == [1, 2, 3, 4]
    assert [record.loss for record in resumed.history] == [record.loss for record in whole.history]


def test_ctrl_c_in_an_epoch_leaves_the_checkpoint_of_the_last_whole_one(tmp_path: Path) -> None:
    n_images: list[int] = []

    def on_images(n: int) -> None:
        n_images.append(n)
        if sum(n_images) > 2.5 * len(TRAIN):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "c", on_images=on_images)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    resumed: list[int] = []
    assert is_equal(weights_of(train(tmp_path / "c", on_images=resumed.append)), weights_of(train(tmp_path / "whole")))
    assert sum(resumed) == 2 * len(TRAIN)


def test_a_finished_training_is_only_read(tmp_path: Path) -> None:
    first = train(tmp_path / "c")
    stamp = (tmp_path / "c").stat().st_mtime_ns
    again = train(tmp_path / "c", on_images=lambda n: pytest.fail("trained again"))
    assert is_equal(weights_of(first), weights_of(again))
    assert again.history == first.history
    assert (tmp_path / "c").stat().st_mtime_ns == stamp


def test_the_seed_decides_everything_and_global_randomness_nothing(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = train(tmp_path / "1")
    assert torch.initial_seed() == 1
    torch.manual_seed(2)
    same = train(tmp_path / "2")
    other = train(tmp_path / "3", dataclasses.replace(CONFIG, seed=1))
    assert is_equal(weights_of(first), weights_of(same))
    assert not is_equal(weights_of(first), weights_of(other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": dataclasses.replace(CONFIG, epochs=5)}, "config epochs: 4 there, 5 now"),
        ({"config": dataclasses.replace(CONFIG, learning_rate=0.1)}, "config learning_rate: 0.05 there, 0.1 now"),
        ({"spec": DROPOUT}, "spec architecture: digits-cnn there"),
        ({"train": toy_images(90, 5)}, "data: "),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_and_kept(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    train(tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(TrainingError, match=f"belongs to another training .*{message}.*delete it"):
        train(tmp_path / "c", **change)
    assert (tmp_path / "c").read_bytes() == before


@pytest.mark.parametrize("fault", ["empty", "truncated", "pickle", "plain weights", "no losses"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "c"
    train(path)
    if fault == "plain weights":
        save_file(load_file(path), path)
    elif fault == "no losses":
        with safe_open(path, framework="pt") as file:
            description = file.metadata()
        tensors = load_file(path)
        del tensors["last_losses"]
        save_file(tensors, path, description)
    else:
        contents = {"empty": b"", "truncated": path.read_bytes()[:-9], "pickle": b"\x80\x04N."}
        path.write_bytes(contents[fault])
    with pytest.raises(
        TrainingError, match=r"(no checkpoint of a training|no losses of the training images).*delete it"
    ):
        train(path)


@pytest.mark.parametrize("fault", ["a tensor less", "other losses", "one loss for all", "another history"])
def test_a_checkpoint_with_other_content_is_refused(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "c"
    train(path)
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["modeguard_training"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    if fault == "a tensor less":
        del tensors["network.classifier.2.weight"]
    elif fault == "other losses":
        tensors["last_losses"] = torch.zeros(5)
    elif fault == "one loss for all":
        tensors["last_losses"] = torch.zeros(1)
    else:
        description["history"][0]["colour"] = "red"
    save_file(tensors, path, {"modeguard_training": json.dumps(description)})
    with pytest.raises(TrainingError, match=r"other content than the training needs .*delete it"):
        train(path)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c"
    with pytest.raises(InterruptionError):
        train(path, on_epoch=stop_after(2))
    before = path.read_bytes()

    def full_disk(descriptor: int) -> NoReturn:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full_disk)
        with pytest.raises(TrainingError, match=r"cannot be written .*No space left"):
            train(path)
    assert path.read_bytes() == before
    assert [place.name for place in tmp_path.iterdir()] == ["c"]
    assert is_equal(weights_of(train(path)), weights_of(train(tmp_path / "whole")))


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_no_such_weights(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, learning_rate=1e18, warmup_fraction=0.0)
    with pytest.raises(TrainingError, match=r"not finite any more in epoch 1 at learning rate .*lower learning_rate"):
        train(tmp_path / "c", config)
    assert not (tmp_path / "c").exists()


def test_images_that_do_not_fit_the_classifier_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"takes images \(1, 8, 8\) .* training images are \(1, 6, 6\)"):
        train(tmp_path / "c", spec=dataclasses.replace(SPEC, input_shape=(1, 8, 8)))
    with pytest.raises(TrainingError, match=r"classes 0 to 1, .* classes up to 2"):
        train(tmp_path / "c", spec=dataclasses.replace(SPEC, n_classes=2))
    with pytest.raises(TrainingError, match="at least 2 training images"):
        train(tmp_path / "c", train=toy_images(1, 0))
    with pytest.raises(ClassifierError, match="finished program"):
        train(tmp_path / "c", spec=dataclasses.replace(SPEC, architecture="torch.export"))


def test_the_digits_network_is_good_within_seconds(tmp_path: Path) -> None:
    digits = load_dataset(DataConfig("digits"))
    spec = ClassifierSpec("digits-cnn", 10, (1, 8, 8), (0.305,), (0.376,))
    config = TrainingConfig(epochs=10, batch_size=64, learning_rate=0.05)
    result = train_classifier(spec, digits.train, digits.test, config, checkpoint=tmp_path / "c")
    assert result.history[-1].test_accuracy >= 0.97
