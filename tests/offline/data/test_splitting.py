"""Unsplit images are split so that nothing is in both parts and every class keeps its fraction."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeguard.offline.data import DatasetError
from modeguard.offline.data.splitting import split_rows


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=60),
    st.floats(0.1, 0.9),
    st.integers(0, 100),
)
def test_a_split_takes_every_row_once_and_keeps_the_fractions(drawn: list[int], fraction: float, seed: int) -> None:
    labels = torch.tensor(drawn)
    try:
        train, test = split_rows(labels, fraction, seed)
    except DatasetError:
        assert len(labels.unique()) == len(labels)  # one image a class: only there may a part stay empty
        assert min(fraction, 1 - fraction) * len(labels) <= 1
        return
    assert torch.equal(torch.cat([train, test]).sort().values, torch.arange(len(labels)))
    for k in labels.unique():
        if (labels == k).sum() > 1:
            assert (labels[train] == k).any()
            assert (labels[test] == k).any()


def test_a_split_of_many_classes_of_one_image_keeps_the_fraction() -> None:
    train, test = split_rows(torch.arange(80), 0.75, seed=0)
    assert (len(train), len(test)) == (60, 20)
