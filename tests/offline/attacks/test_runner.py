"""Around every attack: what is refused, what is left out, what one batch holds, and how success is measured."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from modeguard.detector import Classifier, DetectorInputError
from modeguard.offline.attacks import (
    ATTACKS,
    AttackError,
    Draws,
    Fgsm,
    Goal,
    Misclassified,
    Pgd,
    distances,
    is_misclassified,
    run_attack,
)
from modeguard.offline.attacks.attack import Norm
from tests.conftest import ToyClassifier
from tests.offline.attacks.toy_attacks import fool, predicted, seeded, short_attack


@dataclass(frozen=True, slots=True)
class Nothing:
    """An attack that returns what it is given, and tells what it was asked to do."""

    norm: ClassVar[Norm] = "l2"
    told: Callable[[int], None]

    def perturb(self, goal: Goal, images: Tensor, draws: Draws) -> Tensor:
        assert not goal.is_met(images).any()
        assert len(images) == len(draws.rows) <= draws.n_slice
        self.told(len(images))
        return images


class NoEmptyBatches:
    """A classifier that cannot answer about no images at all."""

    def __init__(self, classifier: Classifier) -> None:
        self.n_classes, self.input_shape, self.inner = classifier.n_classes, classifier.input_shape, classifier

    def __call__(self, images: Tensor) -> Tensor:
        assert len(images) > 0
        return self.inner(images)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_record_agrees_with_asking_the_classifier_again(
    classifier: ToyClassifier, images: Tensor, name: str
) -> None:
    labels = predicted(classifier, images)
    labels[:10] = (labels[:10] + 1) % classifier.n_classes
    attack = short_attack(name)
    attacked = fool(attack, classifier, images, labels, batch_size=24)
    is_right = ~is_misclassified(classifier, images, labels)
    is_fooled = is_misclassified(classifier, attacked.images, labels)
    assert torch.equal(attacked.is_attacked, is_right)
    assert torch.equal(attacked.is_successful, is_right & is_fooled)
    assert torch.equal(attacked.distances, distances(images, attacked.images, attack.norm))
    assert attacked.success_rate == pytest.approx(float((is_right & is_fooled).sum() / is_right.sum()))


@pytest.mark.parametrize("name", ATTACKS)
def test_rows_of_one_call_are_bounded(classifier: ToyClassifier, images: Tensor, name: str) -> None:
    labels = predicted(classifier, images)
    classifier.largest_call = 0
    fool(short_attack(name), classifier, images, labels, batch_size=5)
    assert classifier.largest_call == 5


@pytest.mark.parametrize("is_wrong", [slice(None), slice(0, 16), slice(50, 64)], ids=str)
@pytest.mark.parametrize("name", ATTACKS)
def test_slices_with_nothing_to_attack_never_reach_the_network(
    classifier: ToyClassifier, images: Tensor, name: str, is_wrong: slice
) -> None:
    labels = predicted(classifier, images)
    labels[is_wrong] = (labels[is_wrong] + 1) % classifier.n_classes
    attacked = fool(short_attack(name), NoEmptyBatches(classifier), images, labels, batch_size=8)
    assert torch.equal(attacked.images[is_wrong], images[is_wrong])
    assert attacked.is_attacked.sum() == (~is_misclassified(classifier, images, labels)).sum()


@pytest.mark.parametrize("name", ATTACKS)
def test_no_images_at_all_give_an_empty_record(classifier: ToyClassifier, images: Tensor, name: str) -> None:
    attacked = fool(short_attack(name), NoEmptyBatches(classifier), images[:0], torch.zeros(0, dtype=torch.int64))
    assert attacked.images.shape == images[:0].shape
    assert attacked.is_attacked.shape == attacked.is_successful.shape == attacked.distances.shape == (0,)
    assert attacked.success_rate != attacked.success_rate


def test_progress_counts_all_images_whether_attacked_or_not(classifier: ToyClassifier, images: Tensor) -> None:
    labels = predicted(classifier, images)
    labels[:30] = (labels[:30] + 1) % classifier.n_classes
    finished: list[int] = []
    n_attacked: list[int] = []
    run_attack(
        Nothing(n_attacked.append),
        Misclassified(classifier, labels),
        images,
        batch_size=24,
        generator=seeded(),
        on_progress=finished.append,
    )
    assert finished == [24, 48, 64]
    assert n_attacked == [18, 16]


def test_an_attack_that_does_nothing_has_no_success(classifier: ToyClassifier, images: Tensor) -> None:
    attacked = fool(Nothing(lambda _: None), classifier, images, predicted(classifier, images))
    assert attacked.success_rate == 0
    assert attacked.is_attacked.all()


def test_who_knows_what_meets_the_goal_spares_a_pass(classifier: ToyClassifier, images: Tensor) -> None:
    labels = predicted(classifier, images)
    labels[::2] = (labels[::2] + 1) % classifier.n_classes
    goal, is_met = Misclassified(classifier, labels), torch.arange(len(images)) % 2 == 0
    rows = {}
    for known in (None, is_met):
        classifier.n_rows = 0
        attacked = run_attack(Pgd(n_steps=3), goal, images, batch_size=24, generator=seeded(), is_met=known)
        rows[known is None] = classifier.n_rows, attacked
    assert rows[False][0] == 32 * 3 + 32
    assert rows[True][0] == rows[False][0] + 64
    assert torch.equal(rows[True][1].images, rows[False][1].images)
    assert torch.equal(rows[True][1].is_successful, rows[False][1].is_successful)


def test_images_and_goals_that_do_not_fit_are_refused(classifier: ToyClassifier, images: Tensor) -> None:
    labels = predicted(classifier, images)
    for bad_images, bad_labels, message in (
        (images * 255, labels, "divide bytes by 255"),
        (images * torch.nan, labels, r"lie in \[0, 1\]"),
        (images, labels[1:], "type int64"),
        (images, labels.double(), "type int64"),
        (images, labels + 4, "0 to 3"),
    ):
        with pytest.raises(AttackError, match=message):
            fool(Fgsm(), classifier, bad_images, bad_labels)
    with pytest.raises(DetectorInputError, match="shape"):
        fool(Fgsm(), classifier, images[:, :, :2], labels)


def test_a_batch_of_no_rows_is_refused(classifier: ToyClassifier, images: Tensor) -> None:
    with pytest.raises(AttackError, match="batch_size is a whole number of at least 1, got 0"):
        fool(Fgsm(), classifier, images, predicted(classifier, images), batch_size=0)


@pytest.mark.parametrize("is_met", [torch.zeros(63, dtype=torch.bool), torch.zeros(64)])
def test_a_mask_of_other_images_is_refused(classifier: ToyClassifier, images: Tensor, is_met: Tensor) -> None:
    goal = Misclassified(classifier, predicted(classifier, images))
    with pytest.raises(AttackError, match=r"is_met of shape \(64,\) and type bool"):
        run_attack(Fgsm(), goal, images, batch_size=64, generator=seeded(), is_met=is_met)
