"""Loss curves against one forward pass a point, their cost, their slices and their gradients."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from modeguard.detector import ClassTemplates, DetectorInputError, barrier_gaps, barrier_heights, loss_curves
from tests.conftest import ToyClassifier, toy_templates

ALPHAS = (0.0, 0.2, 0.5, 0.9, 1.0)


def naive_losses(
    classifier: ToyClassifier, image: Tensor, templates: ClassTemplates, alphas: tuple[float, ...]
) -> Tensor:
    """Equation 3 and cross-entropy, one row at a time."""
    predicted = int(classifier(image[None]).argmax())
    row = int((templates.classes == predicted).nonzero())
    losses = [
        [
            torch.nn.functional.cross_entropy(
                classifier(((1 - alpha) * image + alpha * template)[None]), torch.tensor([predicted])
            )
            for alpha in alphas
        ]
        for template in templates.images[row]
    ]
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("alphas", [ALPHAS, (0.0, 1.0), (0.5,), (0.1, 0.7), (0.0,), (1.0,)])
def test_loss_curve_equals_one_forward_per_point(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates, alphas: tuple[float, ...]
) -> None:
    curves = loss_curves(classifier, images, templates, alphas)
    expected = torch.stack([naive_losses(classifier, image, templates, alphas) for image in images])
    torch.testing.assert_close(curves.losses, expected)


def test_margins_are_positive_exactly_where_the_predicted_class_wins(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates
) -> None:
    """Towards images of another class, so that the predicted class loses on the way."""
    others = replace(templates, images=templates.images.roll(1, dims=0))
    curves = loss_curves(classifier, images, others, ALPHAS)
    point = torch.lerp(images, others.images[others.rows_of(curves.predicted), 1], 0.5)
    is_winning = classifier(point).argmax(dim=1) == curves.predicted
    assert torch.equal(curves.margins[:, 1, 2] > 0, is_winning)
    assert is_winning.any()
    assert not is_winning.all()


def test_known_ends_are_not_computed_and_the_cost_is_what_was_called(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates
) -> None:
    classifier.n_rows = 0
    curves = loss_curves(classifier, images, templates, ALPHAS)
    assert curves.n_rows == classifier.n_rows == 64 * (1 + 3 * 3)


@pytest.mark.parametrize("rows_per_call", [1, 7, 64, 10_000])
def test_slices_bound_the_calls_and_change_nothing(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates, rows_per_call: int
) -> None:
    whole = loss_curves(classifier, images, templates, ALPHAS)
    classifier.largest_call = 0
    sliced = loss_curves(classifier, images, templates, ALPHAS, rows_per_call=rows_per_call)
    assert classifier.largest_call <= rows_per_call
    torch.testing.assert_close(sliced.losses, whole.losses)
    torch.testing.assert_close(sliced.margins, whole.margins)


def test_gradients_are_those_of_finite_differences(classifier: ToyClassifier, templates: ClassTemplates) -> None:
    image = torch.rand((2, 1, 4, 4), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    image.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: loss_curves(classifier, x, templates, ALPHAS).losses, (image,))


def test_classes_without_template_have_no_curve(classifier: ToyClassifier, images: Tensor) -> None:
    some = toy_templates(classifier, classes=torch.tensor([0, 2]))
    curves = loss_curves(classifier, images, some, ALPHAS)
    is_covered = (curves.predicted == 0) | (curves.predicted == 2)
    assert 0 < int(is_covered.sum()) < len(images)
    assert torch.equal(curves.is_covered, is_covered)
    assert torch.equal(curves.losses.isnan().all(dim=2).all(dim=1), ~is_covered)


def test_losses_are_float32_or_wider_whatever_the_classifier_computes_in(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates
) -> None:
    class Half(ToyClassifier):
        def __call__(self, images: Tensor) -> Tensor:
            return super().__call__(images).to(torch.bfloat16)

    rough = loss_curves(Half(), images.float(), templates, ALPHAS)
    exact = loss_curves(classifier, images, templates, ALPHAS)
    assert rough.losses.dtype == torch.float32
    is_same = rough.predicted == exact.predicted
    torch.testing.assert_close(rough.losses[is_same].double(), exact.losses[is_same], atol=0.1, rtol=0.05)


def test_selection_is_what_fewer_points_and_templates_give(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates
) -> None:
    selected = loss_curves(classifier, images, templates, ALPHAS).select((0.2, 1.0), 2)
    direct = loss_curves(classifier, images, templates.first(2), (0.2, 1.0))
    torch.testing.assert_close(selected.losses, direct.losses)
    with pytest.raises(DetectorInputError, match=r"hold no selection of alphas \[0\.3\]"):
        direct.select((0.3,), 1)


def test_barrier_of_a_hill_is_its_top_and_its_rise(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates
) -> None:
    curves = loss_curves(classifier, images, templates, ALPHAS)
    hill = curves.losses.clone()
    hill[:] = torch.tensor([1.0, 3.0, 5.0, 2.0, 0.5])
    made = replace(curves, losses=hill)
    assert (barrier_heights(made) == 5).all()
    assert (barrier_gaps(made) == 4).all()


@pytest.mark.parametrize(
    ("alphas", "message"),
    [
        ((), "ascending"),
        ((0.5, 0.5), "ascending"),
        ((0.5, 0.1), "ascending"),
        ((-0.1, 1.0), "within"),
        ((0.0, 1.1), "within"),
    ],
)
def test_alphas_that_are_no_path_are_refused(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates, alphas: tuple[float, ...], message: str
) -> None:
    with pytest.raises(DetectorInputError, match=message):
        loss_curves(classifier, images, templates, alphas)


def test_images_of_another_shape_or_type_are_refused(classifier: ToyClassifier, templates: ClassTemplates) -> None:
    with pytest.raises(DetectorInputError, match=r"\('n', 1, 4, 4\) were expected, got \(2, 3, 4, 4\)"):
        loss_curves(classifier, torch.rand(2, 3, 4, 4), templates, ALPHAS)
    with pytest.raises(DetectorInputError, match=r"convert bytes with detector\.to_pixels"):
        loss_curves(classifier, torch.zeros((2, 1, 4, 4), dtype=torch.uint8), templates, ALPHAS)
