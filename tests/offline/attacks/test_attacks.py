"""The attacks keep their budgets, reach any goal that can be reached, and do not depend on the rest of the batch."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modeguard.offline.attacks import (
    ATTACKS,
    AttackError,
    Bim,
    CarliniWagner,
    DeepFool,
    Draws,
    Fgsm,
    Misclassified,
    Pgd,
    TargetedAdam,
    distances,
    run_attack,
)
from tests.conftest import ToyClassifier
from tests.offline.attacks.toy_attacks import DETERMINISTIC, SHORT, Bright, fool, predicted, seeded, short_attack


class ConstantClassifier:
    """Answers class 0 whatever it sees, and can be differentiated: no attack can succeed."""

    n_classes = 3
    input_shape = (1, 4, 4)

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3] * 0 + images.new_tensor([1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("fgsm", {"epsilon": 0.03}),
        ("bim", {"epsilon": 0.03, "n_steps": 10, "relative_step": 0.2}),
        ("pgd", {"epsilon": 0.03, "n_steps": 40, "relative_step": 1 / 30, "random_start": True}),
        ("deepfool", {"n_steps": 50, "n_candidates": 10, "overshoot": 0.02}),
        (
            "cw",
            {
                "n_steps": 1000,
                "n_search_steps": 9,
                "learning_rate": 0.01,
                "confidence": 0.0,
                "initial_constant": 1e-3,
                "abort_early": True,
            },
        ),
        (
            "targeted_adam",
            {"n_steps": 512, "learning_rate": 0.005, "deviation_weight": 0.1, "frequency_weight": 1e-8},
        ),
    ],
)
def test_defaults_are_the_published_ones(name: str, published: dict[str, Any]) -> None:
    assert ATTACKS[name]() == ATTACKS[name](**published)


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(["fgsm", "bim", "pgd"]),
    epsilon=st.floats(0.001, 1.0),
    seed=st.integers(0, 2**16),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_linf_attacks_stay_in_the_ball_and_in_pixel_range(
    name: str, epsilon: float, seed: int, dtype: torch.dtype
) -> None:
    classifier = ToyClassifier()
    images = torch.rand((8, 1, 4, 4), generator=seeded(seed), dtype=dtype).mul(1.4).sub(0.2).clamp(0, 1)
    attack = ATTACKS[name](epsilon=epsilon, **SHORT[name])
    adversarial = fool(attack, classifier, images, predicted(classifier, images), seed=seed).images
    assert adversarial.dtype == dtype
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert distances(images, adversarial, "linf").max() <= epsilon + 1e-6


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_stay_in_range_and_only_correct_images_change(
    classifier: ToyClassifier, images: Tensor, name: str, dtype: torch.dtype
) -> None:
    images = images.to(dtype)
    labels = predicted(classifier, images)
    is_wrong = torch.arange(len(images)) % 3 == 0
    labels = torch.where(is_wrong, (labels + 1) % classifier.n_classes, labels)
    before = images.clone()
    adversarial = fool(short_attack(name), classifier, images, labels).images
    assert torch.equal(images, before)
    assert torch.equal(adversarial[is_wrong], images[is_wrong])
    is_changed = (adversarial != images).flatten(1).any(dim=1)
    assert is_changed[~is_wrong].float().mean() > 0.5
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert adversarial.dtype == dtype
    assert not adversarial.requires_grad


@pytest.mark.parametrize("name", ATTACKS)
def test_what_an_attack_is_handed_stays_as_it_is(classifier: ToyClassifier, images: Tensor, name: str) -> None:
    before, everybody = images.clone(), Draws(seeded(), len(images), torch.arange(len(images)))
    adversarial = short_attack(name).perturb(
        Misclassified(classifier, predicted(classifier, images)), images, everybody
    )
    assert torch.equal(images, before)
    assert not torch.equal(adversarial, images)


@pytest.mark.parametrize("name", ATTACKS)
def test_no_images_give_no_images(classifier: ToyClassifier, images: Tensor, name: str) -> None:
    nobody = torch.zeros(0, dtype=torch.int64)
    nothing = short_attack(name).perturb(
        Misclassified(classifier, nobody), images[:0], Draws(seeded(), len(images), nobody)
    )
    assert nothing.shape == images[:0].shape


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_generator_gives_the_same_images(classifier: ToyClassifier, images: Tensor, name: str) -> None:
    labels = predicted(classifier, images)
    once, again = (fool(short_attack(name), classifier, images, labels, seed=7).images for _ in range(2))
    assert torch.equal(once, again)


@pytest.mark.parametrize("name", ["pgd", "targeted_adam"])
def test_another_seed_gives_other_images(classifier: ToyClassifier, images: Tensor, name: str) -> None:
    labels = predicted(classifier, images)
    some, others = (fool(short_attack(name), classifier, images, labels, seed=seed).images for seed in (1, 2))
    assert not torch.equal(some, others)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_an_image_does_not_depend_on_the_rest_of_the_batch(
    classifier: ToyClassifier, images: Tensor, name: str
) -> None:
    labels = predicted(classifier, images)
    attack = short_attack(name)
    together = fool(attack, classifier, images, labels).images
    alone = fool(attack, classifier, images, labels, batch_size=1).images
    assert torch.allclose(together, alone, atol=1e-9)


@pytest.mark.parametrize("n_steps", [64, 25, 128])
def test_carlini_wagner_judges_an_image_when_it_is_due_and_not_when_others_are(
    classifier: ToyClassifier, images: Tensor, n_steps: int
) -> None:
    """Images that gave a constant up early are at other steps than the rest of their batch."""
    attack = CarliniWagner(n_steps=n_steps, n_search_steps=4, learning_rate=0.05)
    labels = predicted(classifier, images)
    together = fool(attack, classifier, images, labels, batch_size=len(images)).images
    alone = fool(attack, classifier, images, labels, batch_size=1).images
    torch.testing.assert_close(together, alone, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_image_does_not_depend_on_which_others_are_misclassified(
    classifier: ToyClassifier, images: Tensor, name: str
) -> None:
    labels = predicted(classifier, images)
    is_kept = torch.arange(len(images)) % 8 == 5
    others_wrong = torch.where(is_kept, labels, (labels + 1) % classifier.n_classes)
    first, second = (
        fool(short_attack(name), classifier, images, given_labels).images for given_labels in (labels, others_wrong)
    )
    assert torch.allclose(first[is_kept], second[is_kept], atol=1e-9)


@pytest.mark.parametrize("name", ATTACKS)
def test_where_no_attack_can_succeed_the_result_is_still_an_image(images: Tensor, name: str) -> None:
    attacked = fool(short_attack(name), ConstantClassifier(), images, torch.zeros(len(images), dtype=torch.int64))
    assert attacked.images.isfinite().all()
    assert attacked.success_rate == 0
    if name in DETERMINISTIC:
        assert torch.equal(attacked.images, images)


REACHING: dict[str, dict[str, Any]] = {
    **SHORT,
    "pgd": {"n_steps": 20, "relative_step": 0.2},
    "cw": {"n_steps": 100, "n_search_steps": 5, "initial_constant": 1.0},
    "targeted_adam": {"n_steps": 20},
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_goal_without_classes_or_logits_is_reached(images: Tensor, name: str) -> None:
    is_bright_already = torch.arange(len(images)) % 4 == 0
    levels = images.flatten(1).mean(dim=1) + torch.where(is_bright_already, -0.01, 0.01)
    attacked = run_attack(ATTACKS[name](**REACHING[name]), Bright(levels), images, batch_size=24, generator=seeded())
    assert torch.equal(attacked.is_attacked, ~is_bright_already)
    assert torch.equal(attacked.is_successful, ~is_bright_already)
    assert torch.equal(attacked.images[is_bright_already], images[is_bright_already])


def test_the_smallest_way_to_a_linear_goal_is_found_by_those_that_seek_it(images: Tensor) -> None:
    """A mean of 16 pixels that is to rise by 0.01 needs at least 0.01 · √16 in L2, where no pixel is clipped."""
    inner = 0.45 + 0.1 * images
    goal = Bright(inner.flatten(1).mean(dim=1) + 0.01)
    for attack in (DeepFool(), CarliniWagner(n_steps=300)):
        attacked = run_attack(attack, goal, inner, batch_size=64, generator=seeded())
        assert attacked.success_rate == 1
        assert attacked.distances.min() >= 0.04
        assert attacked.distances.max() < 0.042


@pytest.mark.parametrize("name", ATTACKS)
def test_parameters_of_the_network_get_no_gradients(name: str) -> None:
    class Network(nn.Module):
        n_classes, input_shape = 3, (1, 4, 4)

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 3)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.linear(images.flatten(1))
            return logits

    torch.manual_seed(0)
    network = Network()
    images = torch.rand((6, 1, 4, 4), generator=seeded())
    with torch.no_grad():
        fool(short_attack(name), network, images, predicted(network, images))
    assert network.linear.weight.grad is None
    assert network.linear.weight.requires_grad


@pytest.mark.parametrize(
    ("attack", "parameters", "message"),
    [
        (Fgsm, {"epsilon": 0}, "above 0 and at most 1, got 0"),
        (Fgsm, {"epsilon": 8}, "above 0 and at most 1, got 8"),
        (Fgsm, {"epsilon": float("nan")}, "above 0 and at most 1"),
        (Fgsm, {"epsilon": "0.1"}, "above 0 and at most 1, got '0.1'"),
        (Bim, {"n_steps": 0}, "at least 1, got 0"),
        (Bim, {"n_steps": 2.0}, "whole number"),
        (Bim, {"relative_step": -1}, "above 0 and at most 2"),
        (Pgd, {"n_steps": True}, "whole number"),
        (Pgd, {"random_start": 1}, "true or false"),
        (DeepFool, {"n_candidates": 1}, "at least 2, got 1"),
        (DeepFool, {"overshoot": -0.1}, "at least 0 and at most 1"),
        (CarliniWagner, {"n_search_steps": 0}, "at least 1"),
        (CarliniWagner, {"confidence": -1}, "at least 0"),
        (CarliniWagner, {"initial_constant": 0}, "above 0"),
        (CarliniWagner, {"learning_rate": float("inf")}, "above 0"),
        (CarliniWagner, {"abort_early": 0}, "true or false"),
        (TargetedAdam, {"frequency_weight": -1e-8}, "at least 0"),
        (TargetedAdam, {"learning_rate": 0}, "above 0 and at most 1"),
        (TargetedAdam, {"target_classes": (3,)}, "at least two different"),
        (TargetedAdam, {"target_classes": (3, 3)}, "at least two different"),
    ],
)
def test_nonsense_parameters_are_refused_with_the_range(attack: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(AttackError, match=message) as refusal:
        attack(**parameters)
    assert str(refusal.value).startswith(next(iter(parameters)))


def test_target_classes_that_the_classifier_lacks_are_refused(classifier: ToyClassifier, images: Tensor) -> None:
    with pytest.raises(AttackError, match="target_classes of this classifier are 0 to 3"):
        fool(TargetedAdam(target_classes=(0, 4)), classifier, images, predicted(classifier, images))
