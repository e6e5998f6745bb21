"""Stability and persistence against Bell's proposition 4.3 in closed form."""

import math

import pytest
import torch
from torch import Tensor

from modeguard.detector import DetectorInputError, gaussian_draws, persistence, stability
from modeguard.detector.questions.noise import noise_response

N_DRAWS = 20_000
SHAPE = (1, 2, 3)


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


@pytest.mark.parametrize("n_sheets", [1, 2, 3])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_stability_in_a_wedge_is_the_closed_form(n_sheets: int, sigma: float) -> None:
    depths = [0.05, 0.2, 0.6]
    found = stability(
        Wedge(n_sheets), at_depths(depths), sigma, gaussian_draws(SHAPE, N_DRAWS, 0), rows_per_call=50_000
    )
    expected = [(0.5 * (1 + math.erf(depth / (math.sqrt(2) * sigma)))) ** n_sheets for depth in depths]
    four_sigma = 4 * 0.5 / math.sqrt(N_DRAWS)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=four_sigma, rtol=0)


@pytest.mark.parametrize("n_sheets", [1, 2, 3])
@pytest.mark.parametrize("gamma", [0.6, 0.7, 0.9])
def test_persistence_in_a_wedge_is_the_closed_form(n_sheets: int, gamma: float) -> None:
    """sigma* = d / (sqrt(2) erfinv(2 gamma^(1/k) - 1)); a wide range of depths needs the bracket widened both ways."""
    if gamma ** (1 / n_sheets) <= 0.5:
        pytest.skip("such a wedge keeps the class at any noise")
    depths = [0.02, 0.3, 1.0, 5.0]
    draws = gaussian_draws(SHAPE, N_DRAWS, 1)
    found = persistence(Wedge(n_sheets), at_depths(depths), draws, gamma=gamma, precision=1e-3, rows_per_call=100_000)
    level = torch.erfinv(torch.tensor(2 * gamma ** (1 / n_sheets) - 1, dtype=torch.float64))
    expected = torch.tensor(depths, dtype=torch.float64) / (math.sqrt(2) * level)
    torch.testing.assert_close(found, expected, rtol=0.06, atol=0)


def test_persistence_of_a_class_without_boundary_is_infinite() -> None:
    half_space = Wedge(1)
    images = torch.cat([at_depths([0.5]), at_depths([-0.5])])
    found = persistence(half_space, images, gaussian_draws(SHAPE, 400, 0), gamma=0.4)
    assert torch.isinf(found).all()


def test_persistence_of_an_image_does_not_depend_on_its_batch() -> None:
    images, draws = at_depths([0.02, 0.3, 4.0]), gaussian_draws(SHAPE, 500, 0)
    alone = torch.cat([persistence(Wedge(2), image[None], draws) for image in images])
    torch.testing.assert_close(persistence(Wedge(2), images, draws, rows_per_call=333), alone)


def test_noise_response_margin_is_the_mean_over_the_draws() -> None:
    images, draws = at_depths([0.3, 0.1]), gaussian_draws(SHAPE, 8, 0)
    classifier = Wedge(2)
    response = noise_response(classifier, images, torch.tensor([1, 1]), draws, [0.2, 0.4], rows_per_call=3)
    expected = torch.stack(
        [torch.stack([classifier(image + sigma * draws)[:, 1].mean() for sigma in (0.2, 0.4)]) for image in images]
    )
    torch.testing.assert_close(response.margins, expected)


def test_draws_are_reproducible_and_seeded() -> None:
    assert torch.equal(gaussian_draws(SHAPE, 5, 7), gaussian_draws(SHAPE, 5, 7))
    assert not torch.equal(gaussian_draws(SHAPE, 5, 7), gaussian_draws(SHAPE, 5, 8))


@pytest.mark.parametrize("gamma", [0.0, 1.0, -1.0])
def test_gamma_outside_its_range_is_refused(gamma: float) -> None:
    with pytest.raises(DetectorInputError, match="gamma"):
        persistence(Wedge(1), at_depths([0.3]), gaussian_draws(SHAPE, 5, 0), gamma=gamma)
