"""Noise and persistence against Bell's proposition 4.3 in closed form."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from modeguard.detector import Classifier, ClassTemplates, Counted, DetectorInputError, Sliced
from modeguard.detector.questions import AtImage, Noise, Persistence, gaussian_draws

N_DRAWS = 20_000
SHAPE = (1, 2, 3)
NO_TEMPLATES: Any = None  # noise leads to none


class Wedge:
    """Class 1 is where the first k coordinates exceed 0.5: a conical wedge of k orthogonal sheets."""

    n_classes = 2
    input_shape = SHAPE

    def __init__(self, n_sheets: int) -> None:
        self.n_sheets = n_sheets

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (n, 2)."""
        depth = (images.flatten(1)[:, : self.n_sheets] - 0.5).amin(dim=1)
        return torch.stack([torch.zeros_like(depth), depth], dim=1)


def at_depths(depths: list[float]) -> Tensor:
    """Images (n, 1, 2, 3) at the same distance from every sheet."""
    return torch.tensor(depths, dtype=torch.float64)[:, None, None, None].expand(-1, *SHAPE) + 0.5


def persistence_of(question: Persistence, classifier: Classifier, images: Tensor) -> Tensor:
    return question.ask(Sliced(classifier, 333), images, AtImage(classifier(images)), NO_TEMPLATES).sigma


@pytest.mark.parametrize("n_sheets", [1, 2, 3])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_agreement_in_a_wedge_is_the_closed_form(n_sheets: int, sigma: float) -> None:
    depths, wedge = [0.05, 0.2, 0.6], Wedge(n_sheets)
    images = at_depths(depths)
    answer = Noise((sigma,), N_DRAWS).ask(wedge, images, AtImage(wedge(images)), NO_TEMPLATES)
    expected = [(0.5 * (1 + math.erf(depth / (math.sqrt(2) * sigma)))) ** n_sheets for depth in depths]
    four_sigma = 4 * 0.5 / math.sqrt(N_DRAWS)
    found = answer.agreement[:, 0]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=four_sigma, rtol=0)


@pytest.mark.parametrize("n_sheets", [1, 2, 3])
@pytest.mark.parametrize("gamma", [0.7, 0.9])
def test_persistence_in_a_wedge_is_the_closed_form(n_sheets: int, gamma: float) -> None:
    """sigma* = d / (sqrt(2) erfinv(2 gamma^(1/k) - 1)); a wide range of depths needs the bracket widened both ways."""
    depths = [0.02, 0.3, 1.0, 5.0]
    question = Persistence(
        gamma, max_steps=30, n_draws=N_DRAWS, seed=1, precision=1e-3, first_bracket=(0.5, 1.5), max_sigma=1e3
    )
    found = persistence_of(question, Wedge(n_sheets), at_depths(depths))
    level = torch.erfinv(torch.tensor(2 * gamma ** (1 / n_sheets) - 1, dtype=torch.float64))
    expected = torch.tensor(depths, dtype=torch.float64) / (math.sqrt(2) * level)
    torch.testing.assert_close(found, expected, rtol=0.06, atol=0)


def test_persistence_of_a_class_without_boundary_is_infinite() -> None:
    images = torch.cat([at_depths([0.5]), at_depths([-0.5])])
    assert torch.isinf(persistence_of(Persistence(gamma=0.4, n_draws=400), Wedge(1), images)).all()


def test_persistence_of_a_class_that_any_noise_leaves_is_zero() -> None:
    """At the tip of three sheets an eighth of the noise stays inside, however little there is."""
    assert (persistence_of(Persistence(n_draws=400), Wedge(3), at_depths([1e-9])) == 0).all()


def test_persistence_of_an_image_does_not_depend_on_its_batch() -> None:
    images, question = at_depths([0.02, 0.3, 4.0]), Persistence(n_draws=500, max_steps=30)
    alone = torch.cat([persistence_of(question, Wedge(2), image[None]) for image in images])
    torch.testing.assert_close(persistence_of(question, Wedge(2), images), alone)


def test_persistence_costs_no_more_than_it_says_where_its_first_bracket_holds() -> None:
    question, images = Persistence(n_draws=200), at_depths([0.05, 0.06])
    counted = Counted(Wedge(1))
    question.ask(counted, images, AtImage(Wedge(1)(images)), NO_TEMPLATES)
    assert 0 < counted.n_rows <= 2 * question.n_rows(1)


def test_margins_under_noise_are_the_mean_over_the_draws() -> None:
    images, draws, classifier = at_depths([0.3, 0.1]), gaussian_draws(SHAPE, 8, 0).double(), Wedge(2)
    at_image = AtImage(torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64))
    answer = Noise((0.2, 0.4), n_draws=8).ask(Sliced(classifier, 3), images, at_image, NO_TEMPLATES)
    expected = torch.stack(
        [torch.stack([classifier(image + sigma * draws)[:, 1].mean() for sigma in (0.2, 0.4)]) for image in images]
    )
    torch.testing.assert_close(answer.margins, expected)


def test_draws_are_reproducible_and_seeded() -> None:
    assert torch.equal(gaussian_draws(SHAPE, 5, 7), gaussian_draws(SHAPE, 5, 7))
    assert not torch.equal(gaussian_draws(SHAPE, 5, 7), gaussian_draws(SHAPE, 5, 8))


def test_a_question_that_is_asked_in_one_way_only_answers_itself(templates: ClassTemplates) -> None:
    question, images = Noise((0.1,), n_draws=2), at_depths([0.2])
    answer = question.ask(Wedge(1), images, AtImage(Wedge(1)(images)), templates)
    assert question.selected(answer, Noise((0.1,), n_draws=2), 1) is answer
    assert question.joined(Noise((0.1,), n_draws=2)) == question
    with pytest.raises(DetectorInputError, match="holds none to"):
        question.selected(answer, Noise((0.2,)), 1)
    with pytest.raises(DetectorInputError, match="no one question answers both"):
        question.joined(Noise((0.2,)))


@pytest.mark.parametrize("gamma", [0.0, 1.0, -1.0, float("nan")])
def test_gamma_outside_its_range_is_refused(gamma: float) -> None:
    with pytest.raises(DetectorInputError, match="gamma"):
        Persistence(gamma=gamma)


@pytest.mark.parametrize("sigmas", [(), (0.1, 0.0), (float("nan"),), (float("inf"),)])
def test_noise_levels_that_are_no_positive_numbers_are_refused(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(DetectorInputError, match="noise levels are positive and finite"):
        Noise(sigmas)


@pytest.mark.parametrize(
    "options",
    [
        {"max_sigma": math.inf},
        {"max_sigma": 1e30},
        {"first_bracket": (1e-300, 0.2)},
    ],
)
def test_a_search_without_end_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DetectorInputError, match=r"max_sigma"):
        Persistence(**options)


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    for question in (Noise, Persistence):
        with pytest.raises(DetectorInputError, match="seed is 0 to"):
            question(seed=seed)


def test_noise_that_overflows_is_refused() -> None:
    with pytest.raises(DetectorInputError, match="noise levels"):
        Noise(sigmas=(1e300,))
