"""Crops are windows, mirrors are told, rotations are rotations."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from modeguard.offline.training.augmentation import Augmentation, augment


def padded(image: Tensor, padding: int, fill: str) -> Tensor:
    pixels = image[None].float() / 255
    mode = {"zero": "constant", "reflect": "reflect"}[fill]
    return nn.functional.pad(pixels, (padding,) * 4, mode=mode)[0]


@pytest.mark.parametrize("fill", ["zero", "reflect"])
def test_a_crop_is_a_window_of_the_padded_image(fill: Literal["zero", "reflect"]) -> None:
    """A naive oracle: each result is one of the 2 × 25 windows that padding by 2 and flipping allow, and all occur."""
    image = torch.randint(0, 256, (3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wide = padded(image, 2, fill)
    upright = [wide[:, y : y + 5, x : x + 6] for y in range(5) for x in range(5)]
    windows = torch.stack(upright + [window.flip(2) for window in upright])
    batch = image.expand(1000, -1, -1, -1)
    is_mirrored = torch.arange(1000) % 2 == 0
    found = augment(batch, Augmentation(2, fill, flip=True), is_mirrored, torch.Generator().manual_seed(1))
    distances = (found[:, None] - windows[None]).abs().amax((2, 3, 4))
    assert (distances.min(dim=1).values < 1e-6).all()
    assert torch.equal(distances.argmin(dim=1) >= 25, is_mirrored)
    counts = torch.bincount(distances.argmin(dim=1), minlength=50)
    assert counts.min() > 3  # of 20 expected
    assert counts.max() < 50


def test_no_augmentation_changes_nothing() -> None:
    images = torch.randint(0, 256, (9, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        augment(images, Augmentation(), torch.ones(9, dtype=torch.bool), torch.Generator()),
        images.float() / 255,
    )


def test_a_rotation_turns_a_disc_into_itself_and_a_bar_by_the_angle() -> None:
    rows, columns = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(65.0) - 32, indexing="ij")
    disc = (rows**2 + columns**2 < 100).to(torch.uint8) * 255
    bar = ((rows.abs() < 2) & (columns.abs() < 13)).to(torch.uint8) * 255
    turned = augment(
        torch.stack([disc, bar])[:, None].repeat(20, 1, 1, 1),
        Augmentation(rotation_degrees=30),
        torch.zeros(40, dtype=torch.bool),
        torch.Generator(),
    )[:, 0]
    discs, bars = turned[0::2], turned[1::2]
    assert (discs - disc / 255).abs().mean() < 0.02
    spread = torch.stack([(bars * rows**2).sum((1, 2)), (bars * rows * columns).sum((1, 2))])
    across = (bars * columns**2).sum((1, 2))
    angles = (0.5 * torch.atan2(2 * spread[1], across - spread[0])).rad2deg()  # principal axis of second moments
    assert angles.abs().max() < 31
    assert angles.max() - angles.min() > 30
    lengths = (bars.sum((1, 2)) / (bar / 255).sum()).tolist()
    assert lengths == pytest.approx([1.0] * 20, abs=0.03)  # a rotation, not a shear: the area stays
