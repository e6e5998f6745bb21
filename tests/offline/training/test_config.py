"""Wrong choices are refused by name, and schedules run as published."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from modeguard.offline.training import TrainingConfig, TrainingError
from modeguard.offline.training.config import SCHEDULES, learning_rate_at


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("schedule", "constant"),
        ("warmup_fraction", 1.0),
        ("milestones", (0.5, 60.0)),
        ("decay", 1.0),
        ("crop_padding", -1),
        ("crop_fill", "grey"),
        ("rotation_degrees", 200.0),
        ("prune_ratio", 1.0),
        ("averaged_epochs", -1),
        ("averaged_learning_rate", 0.0),
        ("precision", "float16"),
        ("seed", -1),
    ],
)
def test_a_configuration_of_nonsense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(TrainingError, match=name):
        TrainingConfig(**{name: value})


def rates(config: TrainingConfig, n_steps: int = 1000) -> Tensor:
    return torch.tensor([learning_rate_at((step + 0.5) / n_steps, config) for step in range(n_steps)])


def test_one_cycle_rises_to_the_highest_rate_and_falls_to_nothing() -> None:
    config = TrainingConfig(learning_rate=0.4, schedule="onecycle", warmup_fraction=0.25)
    found = rates(config)
    assert abs(int(found.argmax()) - 250) <= 1
    assert (found[:250].diff() > 0).all()
    assert (found[251:].diff() < 0).all()
    assert found.max().item() == pytest.approx(0.4, rel=1e-4)
    assert found[125].item() == pytest.approx(0.2, rel=0.01)
    assert found[625].item() == pytest.approx(0.2, rel=0.01)  # half of a half cosine
    assert found[-1] < 1e-5


def test_averaged_epochs_follow_at_one_rate_and_change_nothing_before() -> None:
    plain, averaged = (TrainingConfig(averaged_epochs=n, averaged_learning_rate=0.03) for n in (0, 5))
    assert torch.equal(rates(plain), rates(averaged))
    assert [learning_rate_at(done, averaged) for done in (1.0, 1.2)] == [0.03, 0.03]


def test_multistep_is_that_of_the_protocol() -> None:
    """200 epochs, one of warm-up, a fifth after 60, 120 and 160 (Harder et al. 2021, CIFAR-100)."""
    config = TrainingConfig(
        learning_rate=0.1, schedule="multistep", warmup_fraction=1 / 200, milestones=(0.3, 0.6, 0.8), decay=0.2
    )
    found = rates(config, 200 * 10)
    for epoch, rate in ((1, 0.1), (59, 0.1), (60, 0.02), (119, 0.02), (120, 0.004), (160, 0.0008), (199, 0.0008)):
        assert found[epoch * 10].item() == pytest.approx(rate)
    assert (found[:10].diff() > 0).all()


def test_every_schedule_can_be_chosen() -> None:
    for name in SCHEDULES:
        chosen: dict[str, Any] = {"schedule": name}
        assert rates(TrainingConfig(**chosen), 50).min() > 0
