"""The attacks keep their budgets, leave misclassified images alone, and do not depend on the rest of the batch."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modeguard.detector.errors import DetectorInputError
from modeguard.offline.attacks import (
    ATTACKS,
    Attack,
    AttackError,
    Bim,
    CarliniWagner,
    DeepFool,
    Fgsm,
    Pgd,
    TargetedAdam,
    distances,
    is_adversarial,
    run_attack,
)
from tests.conftest import ToyClassifier

SHORT: dict[str, dict[str, Any]] = {
    "fgsm": {},
    "bim": {"n_steps": 3},
    "pgd": {"n_steps": 3},
    "deepfool": {"n_steps": 10},
    "cw": {"n_steps": 20, "n_search_steps": 3, "initial_constant": 0.3, "learning_rate": 0.03},
    "targeted_adam": {"n_steps": 5},
}
DETERMINISTIC = ("fgsm", "bim", "deepfool", "cw")


class ConstantClassifier:
    """Answers class 0 whatever it sees, and can be differentiated: no attack can succeed."""

    n_classes = 3
    input_shape = (1, 4, 4)

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3] * 0 + images.new_tensor([1.0, 0.0, 0.0])


def short_attack(name: str) -> Attack:
    return ATTACKS[name](**SHORT[name])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def predicted(classifier: ToyClassifier, images: Tensor) -> Tensor:
    return classifier(images).argmax(dim=1)


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
    adversarial = attack.attack(classifier, images, predicted(classifier, images), generator=seeded(seed))
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
    adversarial = short_attack(name).attack(classifier, images, labels, generator=seeded())
    assert torch.equal(images, before)
    assert torch.equal(adversarial[is_wrong], images[is_wrong])
    is_changed = (adversarial != images).flatten(1).any(dim=1)
    assert is_changed[~is_wrong].float().mean() > 0.5
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert adversarial.dtype == dtype
    assert not adversarial.requires_grad


@pytest.mark.parametrize("name", ATTACKS)
def test_all_images_misclassified_come_back_as_they_are(classifier: ToyClassifier, images: Tensor, name: str) -> None:
    labels = (predicted(classifier, images) + 1) % classifier.n_classes
    assert torch.equal(short_attack(name).attack(classifier, images, labels, generator=seeded()), images)


@pytest.mark.parametrize("name", ATTACKS)
def test_no_images_give_no_images(classifier: ToyClassifier, images: Tensor, name: str) -> None:
    nothing = short_attack(name).attack(classifier, images[:0], torch.zeros(0, dtype=torch.int64))
    assert nothing.shape == images[:0].shape


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_generator_gives_the_same_images(classifier: ToyClassifier, images: Tensor, name: str) -> None:
    labels = predicted(classifier, images)
    once, again = (short_attack(name).attack(classifier, images, labels, generator=seeded(7)) for _ in range(2))
    assert torch.equal(once, again)


@pytest.mark.parametrize("name", ["pgd", "targeted_adam"])
def test_another_seed_gives_other_images(classifier: ToyClassifier, images: Tensor, name: str) -> None:
    labels = predicted(classifier, images)
    some, others = (short_attack(name).attack(classifier, images, labels, generator=seeded(s)) for s in (1, 2))
    assert not torch.equal(some, others)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_an_image_does_not_depend_on_the_rest_of_the_batch(
    classifier: ToyClassifier, images: Tensor, name: str
) -> None:
    labels = predicted(classifier, images)
    attack = short_attack(name)
    together = attack.attack(classifier, images, labels)
    alone = torch.cat(
        [attack.attack(classifier, images[i : i + 1], labels[i : i + 1]) for i in range(0, len(images), 4)]
    )
    assert torch.allclose(together[::4], alone, atol=1e-9)


@pytest.mark.parametrize("name", ["pgd", "cw", "deepfool"])
def test_random_start_of_an_image_does_not_depend_on_which_others_are_misclassified(
    classifier: ToyClassifier, images: Tensor, name: str
) -> None:
    labels = predicted(classifier, images)
    others_wrong = torch.cat([labels[:8], (labels[8:] + 1) % classifier.n_classes])
    first, second = (
        short_attack(name).attack(classifier, images, given_labels, generator=seeded())
        for given_labels in (labels, others_wrong)
    )
    assert torch.allclose(first[:8], second[:8], atol=1e-9)


@pytest.mark.parametrize("name", ATTACKS)
def test_where_no_attack_can_succeed_the_result_is_still_an_image(images: Tensor, name: str) -> None:
    classifier = ConstantClassifier()
    labels = torch.zeros(len(images), dtype=torch.int64)
    adversarial = short_attack(name).attack(classifier, images, labels, generator=seeded())
    assert adversarial.isfinite().all()
    if name in DETERMINISTIC:
        assert torch.equal(adversarial, images)


@pytest.mark.parametrize("name", ATTACKS)
def test_parameters_of_the_network_get_no_gradients(name: str) -> None:
    class Network(nn.Module):
        n_classes, input_shape = 3, (1, 4, 4)

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(images.flatten(1))

    torch.manual_seed(0)
    network = Network()
    images = torch.rand((6, 1, 4, 4), generator=seeded())
    with torch.no_grad():
        short_attack(name).attack(network, images, network(images).argmax(dim=1), generator=seeded())
    assert network.linear.weight.grad is None
    assert network.linear.weight.requires_grad


@pytest.mark.parametrize("name", ATTACKS)
def test_result_record_agrees_with_asking_the_classifier_again(
    classifier: ToyClassifier, images: Tensor, name: str
) -> None:
    labels = predicted(classifier, images)
    labels[:10] = (labels[:10] + 1) % classifier.n_classes
    finished: list[int] = []
    attack = short_attack(name)
    result = run_attack(
        attack, classifier, images, labels, rows_per_call=24, generator=seeded(), on_progress=finished.append
    )
    is_right = ~is_adversarial(classifier, images, labels)
    is_fooled = is_adversarial(classifier, result.images, labels)
    assert finished == [24, 48, 64]
    assert classifier.largest_call <= 64
    assert torch.equal(result.is_attacked, is_right)
    assert torch.equal(result.is_successful, is_right & is_fooled)
    assert torch.equal(result.distances, distances(images, result.images, attack.norm))
    assert result.success_rate == pytest.approx(float((is_right & is_fooled).sum() / is_right.sum()))


def test_rows_of_one_call_are_bounded(classifier: ToyClassifier, images: Tensor) -> None:
    labels = predicted(classifier, images)
    for name in ATTACKS:
        classifier.largest_call = 0
        run_attack(short_attack(name), classifier, images, labels, rows_per_call=5, generator=seeded())
        assert classifier.largest_call == 5


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
        (TargetedAdam, {"frequency_weight": -1e-8}, "at least 0"),
        (TargetedAdam, {"learning_rate": 0}, "above 0 and at most 1"),
    ],
)
def test_nonsense_parameters_are_refused_with_the_range(attack: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(AttackError, match=message) as refusal:
        attack(**parameters)
    assert str(refusal.value).startswith(next(iter(parameters)))


@pytest.mark.parametrize("name", ATTACKS)
def test_images_and_labels_that_do_not_fit_are_refused(classifier: ToyClassifier, images: Tensor, name: str) -> None:
    attack, labels = short_attack(name), predicted(classifier, images)
    for bad_images, bad_labels, message in (
        (images * 255, labels, "divide bytes by 255"),
        (images * torch.nan, labels, r"lie in \[0, 1\]"),
        (images, labels[1:], "type int64"),
        (images, labels.double(), "type int64"),
        (images, labels + 4, "0 to 3"),
    ):
        with pytest.raises(AttackError, match=message):
            attack.attack(classifier, bad_images, bad_labels)
    with pytest.raises(DetectorInputError, match="shape"):
        attack.attack(classifier, images[:, :, :2], labels)


def test_a_target_that_is_the_label_is_refused(classifier: ToyClassifier, images: Tensor) -> None:
    labels = predicted(classifier, images)
    with pytest.raises(AttackError, match="another class"):
        TargetedAdam().attack(classifier, images, labels, targets=labels)
