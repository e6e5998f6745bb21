"""Records of tensors: stored and read back, picked, joined, and refused when they are not what they say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import pytest
import torch
from torch import Tensor

from modeguard.detector import (
    ClassTemplates,
    Detector,
    Leaf,
    RecordError,
    check_shapes,
    from_tensors,
    join,
    pick,
    to_device,
    to_tensors,
    under,
)
from modeguard.detector.questions import AnyQuestion, Curves, Noise, observation_from_tensors, observe
from modeguard.detector.scorers import Neighbors
from tests.conftest import ToyClassifier


@dataclass(frozen=True, slots=True, eq=False)
class Inner:
    """A record in a record."""

    values: Annotated[Tensor, Leaf("n k", torch.float32)]


@dataclass(frozen=True, slots=True, eq=False)
class Outer:
    """Leaves of its own, records, and plain fields."""

    labels: Annotated[Tensor, Leaf("n", torch.int64)]
    shared: Annotated[Tensor, Leaf("m", torch.float64)]
    inner: Inner
    several: Mapping[str, Inner]
    name: str = "plain"
    numbers: Mapping[str, int] = field(default_factory=dict)


def outer(n: int, start: int = 0) -> Outer:
    values = torch.arange(start, start + 2 * n, dtype=torch.float64).view(n, 2)
    return Outer(
        torch.arange(start, start + n), torch.ones(3), Inner(values), {"a": Inner(values + 1)}, numbers={"x": 1}
    )


def test_leaves_are_stored_by_name_in_their_types_and_plain_fields_are_not() -> None:
    tensors = to_tensors(outer(3))
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {
        "labels": torch.int64,
        "shared": torch.float64,
        "inner.values": torch.float32,
        "several.a.values": torch.float32,
    }


def test_reading_gives_what_was_stored() -> None:
    record = outer(3)
    tensors = to_tensors(record)
    several = {"a": from_tensors(Inner, under("a", under("several", tensors)))}
    again = from_tensors(Outer, tensors, several=several, name="other", numbers={})
    assert again.name == "other"
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in to_tensors(again).items())


def test_picking_and_joining_touch_what_counts_images_and_nothing_else() -> None:
    joined = join([outer(3), outer(2, start=10)])
    assert joined.labels.tolist() == [0, 1, 2, 10, 11]
    assert joined.shared.tolist() == [1, 1, 1]
    assert joined.several["a"].values[:, 0].tolist() == [1, 3, 5, 11, 13]
    for rows in (torch.tensor([3, 0]), torch.tensor([False, True, False, True, False])):
        picked = pick(joined, rows)
        assert torch.equal(picked.labels, joined.labels[rows])
        assert torch.equal(picked.inner.values, joined.inner.values[rows])
    assert pick(joined, slice(1, 3)).labels.tolist() == [1, 2]
    assert (picked.name, picked.numbers, picked.shared.tolist()) == ("plain", {"x": 1}, [1, 1, 1])


def test_moving_to_a_device_moves_every_leaf() -> None:
    moved = to_device(outer(2), "meta")
    assert {moved.labels.device.type, moved.shared.device.type, moved.several["a"].values.device.type} == {"meta"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "Outer needs the tensor labels, which is missing"),
        ({"labels": torch.zeros(3)}, r"labels of Outer is stored as torch\.int64, got torch\.float32"),
        ({"inner.other": torch.zeros(3)}, "Inner has no tensor other"),
        ({"extra": torch.zeros(3)}, "Outer has no tensor extra"),
    ],
)
def test_tensors_that_make_no_record_are_refused(changes: dict[str, Tensor | None], message: str) -> None:
    tensors = {name: tensor for name, tensor in (to_tensors(outer(3)) | changes).items() if tensor is not None}
    with pytest.raises(RecordError, match=message):
        from_tensors(Outer, tensors, several={})


@pytest.mark.parametrize("shape", [(2,), (2, 3, 3, 4, 4)])
def test_shapes_that_are_not_what_a_record_says_are_refused(templates: ClassTemplates, shape: tuple[int, ...]) -> None:
    with pytest.raises(RecordError, match=r"losses of ClassTemplates is \(m, n_templates\) with .*, got"):
        ClassTemplates(templates.classes, templates.images, torch.zeros(shape), templates.margins)
    check_shapes(templates)


def test_a_detector_comes_back_whole(fitted: Detector) -> None:
    """Its configuration and the scorer's options are plain, and kept elsewhere."""
    tensors = to_tensors(fitted)
    assert isinstance(fitted.scorer, Neighbors)
    scorer = from_tensors(Neighbors, under("scorer", tensors), options=fitted.scorer.options)
    again = from_tensors(Detector, tensors, config=fitted.config, scorer=scorer)
    assert again.config == fitted.config
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in to_tensors(again).items())


def test_an_observation_comes_back_whole(classifier: ToyClassifier, templates: ClassTemplates, images: Tensor) -> None:
    questions: dict[str, AnyQuestion] = {"curves": Curves((0.0, 0.5, 1.0)), "noise": Noise((0.1,), n_draws=2)}
    tensors = to_tensors(observe(questions, classifier, images, templates))
    again = observation_from_tensors(questions, tensors)
    assert len(again) == len(images)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in to_tensors(again).items())
    with pytest.raises(RecordError, match="needs the tensor"):
        observation_from_tensors({**questions, "more": Noise()}, tensors)
