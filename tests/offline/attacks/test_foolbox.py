"""The five benchmark attacks against foolbox's, on the same small network trained on the digits of scikit-learn."""

import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from modeguard.offline.attacks import (
    Attack,
    Bim,
    CarliniWagner,
    DeepFool,
    Fgsm,
    Pgd,
    distances,
    is_misclassified,
)
from tests.offline.attacks.toy_attacks import fool

with warnings.catch_warnings():
    # foolbox imports one filter from where scipy used to keep it
    warnings.filterwarnings("ignore", "Please import `gaussian_filter`", DeprecationWarning)
    import foolbox

foolbox_: Any = foolbox  # its names are not exported to type checkers
fa = foolbox_.attacks
EPSILON = 0.1  # digits are coarse: 0.03 changes hardly any answer


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    ours: Attack
    theirs: Any
    epsilon: float | None
    n_images: int
    is_deterministic: bool = True


CASES = (
    Case("fgsm", Fgsm(EPSILON), fa.LinfFastGradientAttack(random_start=False), EPSILON, 300),
    Case("bim", Bim(EPSILON), fa.LinfBasicIterativeAttack(rel_stepsize=0.2, steps=10), EPSILON, 300),
    Case("pgd", Pgd(EPSILON), fa.LinfProjectedGradientDescentAttack(), EPSILON, 300, is_deterministic=False),
    Case("deepfool", DeepFool(), fa.L2DeepFoolAttack(), None, 200),
    Case(
        "cw",
        CarliniWagner(n_steps=200),
        fa.L2CarliniWagnerAttack(binary_search_steps=9, steps=200, stepsize=0.01, initial_const=1e-3),
        None,
        100,
        is_deterministic=False,  # foolbox stops the whole batch at once, we stop each image on its own
    ),
    Case(
        "cw-to-the-end",
        CarliniWagner(n_steps=40, n_search_steps=6, learning_rate=0.05, abort_early=False),
        fa.L2CarliniWagnerAttack(binary_search_steps=6, steps=40, stepsize=0.05, initial_const=1e-3, abort_early=False),
        None,
        40,
    ),
)


class DigitsNetwork(nn.Module):
    """Two layers on 8 x 8 pixels, in double precision so that comparisons are not about rounding."""

    n_classes = 10
    input_shape = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


@dataclass(frozen=True, slots=True)
class Trained:
    network: DigitsNetwork
    images: Tensor
    labels: Tensor


@pytest.fixture(scope="module")
def trained() -> Trained:
    digits = load_digits()
    images = torch.as_tensor(digits.images, dtype=torch.float64)[:, None] / 16
    labels = torch.as_tensor(digits.target, dtype=torch.int64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DigitsNetwork().double()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(8):
        for rows in torch.arange(1300).split(100):
            optimizer.zero_grad()
            F.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
    network.eval().requires_grad_(requires_grad=False)
    return Trained(network, images[1300:], labels[1300:])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_success_and_perturbations_are_those_of_foolbox(trained: Trained, case: Case) -> None:
    is_correct = ~is_misclassified(trained.network, trained.images, trained.labels)
    images = trained.images[is_correct][: case.n_images]
    labels = trained.labels[is_correct][: case.n_images]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = foolbox_.PyTorchModel(trained.network, bounds=(0, 1), device="cpu")
        _, theirs, is_fooled = case.theirs(model, images, labels, epsilons=case.epsilon)
    # where foolbox's Carlini-Wagner finds nothing it returns a black image, which may happen to be misclassified
    is_fooled = is_fooled & theirs.flatten(1).any(dim=1)
    theirs = torch.where(is_fooled[:, None, None, None] | (case.epsilon is not None), theirs, images)

    ours = fool(case.ours, trained.network, images, labels, seed=1, batch_size=256)
    assert ours.success_rate > 0.2
    assert ours.success_rate == pytest.approx(is_fooled.double().mean().item(), abs=0.02)
    their_distances = distances(images, theirs, case.ours.norm)
    assert ours.distances[ours.is_successful].median().item() == pytest.approx(
        their_distances[is_fooled].median().item(), rel=0.05
    )
    if case.is_deterministic:
        assert torch.allclose(ours.images, theirs, atol=1e-5)
