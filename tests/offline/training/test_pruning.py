"""Data pruning leaves out what it says, and the expected sum of the weighted losses is that of all images."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from modeguard.offline.training.pruning import Visit, choose_visit

LOSSES = torch.rand(400, generator=torch.Generator().manual_seed(0)) ** 4  # most are small, as in a training


def visit(losses: Tensor = LOSSES, prune_ratio: float = 0.5, end: float = 0.5, seed: int = 0) -> Visit:
    return choose_visit(losses, prune_ratio, end, torch.Generator().manual_seed(seed))


def test_only_easy_images_are_left_out_and_the_others_weigh_more() -> None:
    found = visit()
    is_easy = LOSSES.lt(LOSSES.mean())
    assert len(found.rows.unique()) == len(found.rows)
    assert set((~is_easy).nonzero()[:, 0].tolist()) <= set(found.rows.tolist())
    assert torch.equal(found.weights, torch.where(is_easy[found.rows], 2.0, 1.0))
    n_left_out = 400 - len(found.rows)
    assert abs(n_left_out - is_easy.sum() / 2) < 4 * math.sqrt(is_easy.sum() / 4)


@pytest.mark.parametrize("prune_ratio", [0.25, 0.5, 0.8])
def test_the_expected_loss_is_that_of_all_images(prune_ratio: float) -> None:
    visits = [visit(prune_ratio=prune_ratio, seed=seed) for seed in range(400)]
    sums = torch.stack([(LOSSES[each.rows] * each.weights).sum() for each in visits])
    assert abs(sums.mean() - LOSSES.sum()) < 4 * sums.std() / math.sqrt(len(sums))


@pytest.mark.parametrize(
    "options",
    [
        {"prune_ratio": 0.0},
        {"end": 36 / 40},
        {"end": 1.0},
        {"losses": torch.full((400,), math.inf)},
    ],
    ids=["no pruning", "last eighth", "only epoch", "first epoch"],
)
def test_every_image_is_met_once(options: dict[str, Any]) -> None:
    found = visit(**options)
    assert torch.equal(found.rows.sort().values, torch.arange(400))
    assert not torch.equal(found.rows, torch.arange(400))
    assert (found.weights == 1).all()


def test_the_generator_decides() -> None:
    assert torch.equal(visit().rows, visit().rows)
    assert not torch.equal(visit().rows[:50], visit(seed=1).rows[:50])


def test_the_last_eighth_begins_where_it_does() -> None:
    assert len(visit(end=35 / 40).rows) < 400


def test_one_image_alone_is_no_epoch() -> None:
    """Batch norm needs two; of these only the hard one is sure to stay."""
    for seed in range(20):
        found = visit(torch.tensor([0.0, 0.1, 9.0]), prune_ratio=0.9, seed=seed)
        assert len(found.rows) >= 2
