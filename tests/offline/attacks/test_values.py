"""What the attacks find where the answer is known in advance: linear classifiers, linear losses, given targets."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from modeguard.offline.attacks import AttackedImages, CarliniWagner, ClassifiedAs, DeepFool, TargetedAdam, run_attack
from modeguard.offline.attacks.linf import projected_gradient
from modeguard.offline.attacks.targeted_adam import other_classes, roughness
from tests.conftest import ToyClassifier
from tests.offline.attacks.toy_attacks import LinearClassifier, fool, predicted, seeded


def other_than(labels: Tensor, among: Sequence[int]) -> Tensor:
    return other_classes(labels, among, torch.rand(len(labels), generator=seeded(), dtype=torch.float64))


def aim(attack: TargetedAdam, classifier: ToyClassifier, images: Tensor) -> tuple[AttackedImages, Tensor]:
    """Towards a random other class of each image; also that class."""
    targets = other_than(predicted(classifier, images), range(classifier.n_classes))
    goal = ClassifiedAs(classifier, targets)
    return run_attack(attack, goal, images, batch_size=64, generator=seeded()), targets


def test_deepfool_of_a_linear_classifier_is_the_closed_form(images: Tensor) -> None:
    """Moosavi-Dezfooli et al. 2016, equation 8: one step to the nearest hyperplane; 1e-4 beyond it, then overshoot."""
    classifier = LinearClassifier()
    inner = 0.45 + 0.1 * images  # far enough from 0 and 1 that no pixel is clipped
    logits = classifier(inner)
    labels = logits.argmax(dim=1)
    gap = logits.gather(1, labels[:, None]) - logits
    length = torch.linalg.vector_norm(classifier.weight[labels][:, None] - classifier.weight, dim=2)
    to_boundary = (gap / length).nan_to_num(torch.inf).amin(dim=1)
    is_near = to_boundary < 0.3
    attacked = fool(DeepFool(n_steps=5, overshoot=0.02), classifier, inner[is_near], labels[is_near])
    expected = 1.02 * (to_boundary[is_near] + 1e-4)
    assert is_near.sum() > 10
    assert torch.allclose(attacked.distances, expected, atol=1e-6)


def test_carlini_wagner_of_a_linear_classifier_finds_the_shortest_way(images: Tensor) -> None:
    classifier = LinearClassifier()
    inner = 0.45 + 0.1 * images
    logits = classifier(inner)
    labels = logits.argmax(dim=1)
    gap = logits.gather(1, labels[:, None]) - logits
    length = torch.linalg.vector_norm(classifier.weight[labels][:, None] - classifier.weight, dim=2)
    shortest = (gap / length).nan_to_num(torch.inf).amin(dim=1)
    result = fool(CarliniWagner(n_steps=300), classifier, inner, labels)
    ratio = result.distances / shortest
    assert result.success_rate == 1
    assert ratio.min() >= 1
    assert ratio.median() < 1.01


def test_confidence_is_by_how_much_the_other_class_wins(classifier: ToyClassifier, images: Tensor) -> None:
    labels = predicted(classifier, images)
    result = fool(CarliniWagner(n_steps=60, n_search_steps=5, confidence=0.5), classifier, images, labels)
    logits = classifier(result.images)[result.is_successful]
    margin = logits.amax(dim=1) - logits.gather(1, labels[result.is_successful][:, None]).squeeze(1)
    assert result.success_rate > 0.5
    assert margin.min() > 0.5


def test_projected_gradient_of_a_linear_loss_ends_in_the_corner(images: Tensor) -> None:
    slope = torch.randn(images.shape[1:], generator=seeded(), dtype=images.dtype)
    reached = projected_gradient(
        lambda x: (x * slope).flatten(1).sum(dim=1), images, images, epsilon=0.1, step_size=0.03, n_steps=5
    )
    assert torch.allclose(reached, (images + 0.1 * slope.sign()).clamp(0, 1))


def test_targeted_attack_reaches_the_given_classes(classifier: ToyClassifier, images: Tensor) -> None:
    attacked, targets = aim(TargetedAdam(n_steps=150, learning_rate=0.02), classifier, images)
    assert attacked.success_rate > 0.9
    assert torch.equal(attacked.is_successful, predicted(classifier, attacked.images) == targets)


def test_targeted_attack_with_a_heavy_deviation_weight_stays_nearer(classifier: ToyClassifier, images: Tensor) -> None:
    near, far = (
        aim(TargetedAdam(n_steps=100, deviation_weight=weight), classifier, images)[0].distances
        for weight in (1e4, 0.0)
    )
    assert near.max() < 0.2 * far.median()


def test_targeted_attack_with_a_heavy_frequency_weight_is_smoother(classifier: ToyClassifier, images: Tensor) -> None:
    smooth, rough = (
        aim(TargetedAdam(n_steps=60, frequency_weight=weight), classifier, images)[0].images for weight in (10.0, 0.0)
    )
    assert roughness(smooth).mean() < 0.5 * roughness(rough).mean()


def test_roughness_equals_a_loop_over_neighbors(images: Tensor) -> None:
    image = images[0, 0]
    expected = sum(
        float((image[i, j] - image[i + di, j + dj]) ** 2)
        for i in range(4)
        for j in range(4)
        for di, dj in ((0, 1), (1, 0))
        if i + di < 4 and j + dj < 4
    )
    assert float(roughness(images[:1])) == pytest.approx(expected)


def test_other_classes_are_all_classes_but_the_label() -> None:
    labels = torch.arange(4).repeat(200)
    drawn = other_than(labels, range(4))
    assert {(int(a), int(b)) for a, b in zip(labels, drawn, strict=True)} == {
        (a, b) for a in range(4) for b in range(4) if a != b
    }


def test_targets_are_drawn_evenly_from_the_classes_named_but_the_label() -> None:
    labels = torch.tensor([5, 7]).repeat_interleave(3000)
    drawn = other_than(labels, (2, 5, 9))
    shares = [[float((drawn[labels == label] == target).double().mean()) for target in (2, 5, 9)] for label in (5, 7)]
    torch.testing.assert_close(torch.tensor(shares), torch.tensor([[0.5, 0, 0.5], [1 / 3] * 3]), atol=0.04, rtol=0)
