"""Records of images refuse at birth what are no images of classes."""

import pytest
import torch
from torch import Tensor

from modeguard.offline.data import DatasetError, ImageDataset, LabelledImages


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2).long(), "uint8 with at least one image.*float32"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2).long(), r"got \(2, 4, 4\)"),
        (torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(0).long(), "at least one image"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3).long(), r"labels are \(2,\).*got \(3,\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2), "int64.*float32"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, -1]), "from 0 on, got -1"),
    ],
)
def test_records_refuse_what_are_no_labelled_images(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        LabelledImages(images, labels)


def test_a_data_set_refuses_labels_and_shapes_that_do_not_fit() -> None:
    one = LabelledImages(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]))
    other = LabelledImages(torch.zeros(2, 1, 4, 5, dtype=torch.uint8), torch.tensor([0, 1]))
    with pytest.raises(DatasetError, match="0 to 1 for 2 classes, got a training label 2"):
        ImageDataset("toy", ("a", "b"), one, one)
    with pytest.raises(DatasetError, match="one shape"):
        ImageDataset("toy", ("a", "b", "c"), one, other)
