"""Epochs whose weights are averaged: what the mean is of, its batch norms, and that it resumes."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from modeguard.offline.training import EpochRecord
from tests.offline.training.toy_training import (
    CONFIG,
    DROPOUT,
    TEST,
    TRAIN,
    InterruptionError,
    is_equal,
    stop_after,
    train,
    weights_of,
)

AVERAGED = dataclasses.replace(CONFIG, epochs=2, averaged_epochs=3, averaged_learning_rate=0.01, prune_ratio=0.5)


def test_the_weights_of_the_averaged_epochs_are_averaged(tmp_path: Path) -> None:
    """The average is of what trainings that end after one, two and three such epochs have before they average."""
    path = tmp_path / "c"
    seen: list[dict[str, Tensor]] = []

    def keep(record: EpochRecord) -> None:
        if record.epoch in (3, 4):
            with safe_open(path, framework="pt") as file:
                seen.append({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping

    result = train(path, AVERAGED, DROPOUT, on_epoch=keep)
    first, second = (tensors["network.linear.weight"] for tensors in seen)
    torch.testing.assert_close(seen[0]["average.linear.weight"], first)
    torch.testing.assert_close(seen[1]["average.linear.weight"], (first + second) / 2)
    final = weights_of(result)
    third = 3 * final["linear.weight"] - first - second
    assert 0 < (third - second).abs().max() < 0.2
    assert [record.learning_rate for record in result.history][2:] == [0.01] * 3
    predicted = result.classifier(TEST.images.float() / 255).argmax(dim=1)
    assert result.history[-1].test_accuracy == (predicted == TEST.labels).double().mean().item()


def test_the_statistics_of_batch_norms_are_those_of_the_averaged_weights(tmp_path: Path) -> None:
    config = dataclasses.replace(AVERAGED, crop_padding=0, flip=False, batch_size=90)
    network: Any = train(tmp_path / "c", config, DROPOUT).classifier.network
    convolution, norm = network.layers[0], network.layers[1]
    seen = convolution((TRAIN.images.float() / 255 - 0.5) / 0.25)
    torch.testing.assert_close(norm.running_mean, seen.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_var, seen.var(dim=(0, 2, 3)))


def test_epochs_before_the_averaged_ones_are_those_of_a_training_without(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", dataclasses.replace(AVERAGED, averaged_epochs=0))
    with pytest.raises(InterruptionError):
        train(tmp_path / "c", AVERAGED, on_epoch=stop_after(2))
    tensors = load_file(tmp_path / "c")
    assert all(torch.equal(tensors[f"network.{name}"], value) for name, value in weights_of(plain).items())


@pytest.mark.parametrize("stopped_after", [2, 3, 4])
def test_an_interrupted_average_is_resumed(tmp_path: Path, stopped_after: int) -> None:
    whole = train(tmp_path / "whole", AVERAGED, DROPOUT)
    with pytest.raises(InterruptionError):
        train(tmp_path / "c", AVERAGED, DROPOUT, on_epoch=stop_after(stopped_after))
    resumed = train(tmp_path / "c", AVERAGED, DROPOUT)
    assert is_equal(weights_of(resumed), weights_of(whole))
    assert is_equal(weights_of(train(tmp_path / "c", AVERAGED, DROPOUT)), weights_of(whole))
