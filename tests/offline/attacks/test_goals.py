"""What the goals say about images: against the logits themselves, and for some images what is said for all."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modeguard.detector import Classifier
from modeguard.offline.attacks import AttackError, ClassifiedAs, Goal, Misclassified
from tests.conftest import ToyClassifier
from tests.offline.attacks.toy_attacks import Bright, LinearClassifier, predicted, seeded

GOALS: dict[str, Callable[[Classifier, Tensor], Goal]] = {"misclassified": Misclassified, "classified as": ClassifiedAs}


@pytest.fixture
def classes() -> Tensor:
    return torch.randint(4, (64,), generator=seeded(3))


@pytest.mark.parametrize("kind", GOALS)
def test_the_gap_is_negative_where_the_goal_is_met_and_only_there(
    classifier: ToyClassifier, images: Tensor, classes: Tensor, kind: str
) -> None:
    goal = GOALS[kind](classifier, classes)
    is_met = goal.is_met(images)
    assert torch.equal(goal.gap(images) < 0, is_met)
    assert torch.equal((goal.gaps(images) < 0).any(dim=1), is_met)
    assert 0 < is_met.sum() < len(images)


def test_gaps_and_losses_equal_a_loop_over_the_logits(
    classifier: ToyClassifier, images: Tensor, classes: Tensor
) -> None:
    logits = classifier(images)
    away, towards = Misclassified(classifier, classes), ClassifiedAs(classifier, classes)
    for i, k in enumerate(classes.tolist()):
        others = [float(logits[i, k] - logits[i, j]) for j in range(4) if j != k]
        assert away.gaps(images)[i].tolist() == pytest.approx(others)
        assert float(away.gap(images)[i]) == -float(towards.gap(images)[i]) == pytest.approx(min(others))
        cross_entropy = float(logits[i].logsumexp(dim=0) - logits[i, k])
        assert float(away.loss(images)[i]) == -float(towards.loss(images)[i]) == pytest.approx(cross_entropy)


@pytest.mark.parametrize("kind", GOALS)
def test_the_gradient_of_the_gap_is_that_of_two_logits(images: Tensor, classes: Tensor, kind: str) -> None:
    classifier = LinearClassifier()
    own = classes % 3
    others = classifier(images).scatter(1, own[:, None], -torch.inf).argmax(dim=1)
    sign = {"misclassified": 1, "classified as": -1}[kind]
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(GOALS[kind](classifier, own).gap(leaf).sum(), leaf)
    assert torch.allclose(gradient.flatten(1), sign * (classifier.weight[own] - classifier.weight[others]))


@pytest.mark.parametrize("rows", [torch.tensor([5, 0, 9]), torch.arange(64) % 7 == 2], ids=["places", "mask"])
@pytest.mark.parametrize("kind", GOALS)
def test_the_goal_of_some_images_says_of_them_what_that_of_all_says(
    classifier: ToyClassifier, images: Tensor, classes: Tensor, kind: str, rows: Tensor
) -> None:
    goal = GOALS[kind](classifier, classes)
    some = goal.pick(rows)
    some.check(images[rows])
    assert torch.equal(some.is_met(images[rows]), goal.is_met(images)[rows])
    for ask in ("gap", "loss", "gaps"):
        assert torch.allclose(getattr(some, ask)(images[rows]), getattr(goal, ask)(images)[rows])


def test_a_goal_of_ones_own_need_say_no_more_than_its_gap(images: Tensor) -> None:
    goal = Bright(torch.full((len(images),), 0.5, dtype=images.dtype))
    assert torch.equal(goal.loss(images), -goal.gap(images))
    assert torch.equal(goal.gaps(images), goal.gap(images)[:, None])


def test_one_class_of_each_image_narrows_the_goal(classifier: ToyClassifier, images: Tensor) -> None:
    labels = predicted(classifier, images)
    goal = Misclassified(classifier, (labels + 1) % 4).aimed_at(labels)
    assert goal.is_met(images).all()


@pytest.mark.parametrize("kind", GOALS)
def test_a_classifier_of_one_class_is_refused(images: Tensor, kind: str) -> None:
    classifier = ToyClassifier(n_classes=1)
    with pytest.raises(AttackError, match="at least 2 classes, got 1"):
        GOALS[kind](classifier, torch.zeros(len(images), dtype=torch.int64)).check(images)


@pytest.mark.parametrize(("kind", "name"), [("misclassified", "labels"), ("classified as", "targets")])
def test_classes_that_do_not_fit_are_refused_by_their_name(
    classifier: ToyClassifier, images: Tensor, classes: Tensor, kind: str, name: str
) -> None:
    for bad in (classes[1:], classes.float(), classes - 1):
        with pytest.raises(AttackError, match=f"^{name} of "):
            GOALS[kind](classifier, bad).check(images)
