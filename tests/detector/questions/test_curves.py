"""Loss curves against one forward pass a point, their cost, their slices and their gradients."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from modeguard.detector import Classifier, ClassTemplates, Counted, DetectorInputError, Sliced
from modeguard.detector.questions import Curves, LossCurves, barrier_gaps, barrier_heights, observe
from tests.conftest import ToyClassifier, toy_templates

ALPHAS = (0.0, 0.2, 0.5, 0.9, 1.0)


def curves_of(
    classifier: Classifier, images: Tensor, templates: ClassTemplates, alphas: tuple[float, ...] = ALPHAS
) -> LossCurves:
    answer: LossCurves = observe({"curves": Curves(alphas)}, classifier, images, templates).answers["curves"]
    return answer


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
    curves = curves_of(classifier, images, templates, alphas)
    expected = torch.stack([naive_losses(classifier, image, templates, alphas) for image in images])
    torch.testing.assert_close(curves.losses, expected)


def test_margins_are_positive_exactly_where_the_predicted_class_wins(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates
) -> None:
    """Towards images of another class, so that the predicted class loses on the way."""
    others = replace(templates, images=templates.images.roll(1, dims=0))
    curves, predicted = curves_of(classifier, images, others), classifier(images).argmax(dim=1)
    point = torch.lerp(images, others.images[others.rows_of(predicted), 1], 0.5)
    is_winning = classifier(point).argmax(dim=1) == predicted
    assert torch.equal(curves.margins[:, 1, 2] > 0, is_winning)
    assert is_winning.any()
    assert not is_winning.all()


def test_known_ends_are_not_computed_and_the_cost_is_what_was_called(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates
) -> None:
    counted = Counted(classifier)
    curves_of(counted, images, templates)
    assert counted.n_rows == 64 * (1 + Curves(ALPHAS).n_rows(3)) == 64 * (1 + 3 * 3)


@pytest.mark.parametrize("rows_per_call", [1, 7, 64, 10_000])
def test_slices_bound_the_calls_and_change_nothing(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates, rows_per_call: int
) -> None:
    whole = curves_of(classifier, images, templates)
    classifier.largest_call = 0
    sliced = curves_of(Sliced(classifier, rows_per_call), images, templates)
    assert classifier.largest_call <= rows_per_call
    torch.testing.assert_close(sliced.losses, whole.losses)
    torch.testing.assert_close(sliced.margins, whole.margins)


def test_rows_are_made_for_some_images_at_a_time_and_that_changes_nothing(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier.largest_call = 0
    whole = curves_of(Sliced(classifier, 10_000), images, templates)
    assert classifier.largest_call == 64 * 9
    monkeypatch.setattr("modeguard.detector.questions.observation._BYTES_AT_ONCE", 1)
    for n_rows, n_images in ((1, 1), (30, 3)):
        monkeypatch.setattr("modeguard.detector.questions.observation.ROWS_PER_CALL", n_rows)
        classifier.largest_call = 0
        sliced = curves_of(Sliced(classifier, 10_000), images[: n_images * 2], templates)
        torch.testing.assert_close(sliced.losses, whole.losses[: n_images * 2])
        assert classifier.largest_call == n_images * 9


def test_gradients_are_those_of_finite_differences(classifier: ToyClassifier, templates: ClassTemplates) -> None:
    image = torch.rand((2, 1, 4, 4), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    image.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: curves_of(classifier, x, templates).losses, (image,))


def test_classes_without_template_have_no_curve_and_cost_no_row(classifier: ToyClassifier, images: Tensor) -> None:
    some, counted = toy_templates(classifier, classes=torch.tensor([0, 2])), Counted(classifier)
    curves = curves_of(counted, images, some)
    predicted = classifier(images).argmax(dim=1)
    is_covered = (predicted == 0) | (predicted == 2)
    assert 0 < int(is_covered.sum()) < len(images)
    assert torch.equal(curves.losses.isnan().all(dim=2).all(dim=1), ~is_covered)
    assert counted.n_rows == 64 + int(is_covered.sum()) * 9


@pytest.mark.parametrize("alphas", [ALPHAS, (0.0, 1.0)])
def test_a_classifier_is_never_called_with_no_rows(
    classifier: ToyClassifier, images: Tensor, alphas: tuple[float, ...]
) -> None:
    """Networks that reshape by the number of images fail on none."""

    class Strict(ToyClassifier):
        def __call__(self, images: Tensor) -> Tensor:
            assert len(images) > 0
            return super().__call__(images)

    predicted = classifier(images).argmax(dim=1)
    uncovered = images[predicted != 0]
    curves = curves_of(Strict(), uncovered, toy_templates(classifier, classes=torch.tensor([0])), alphas)
    assert curves.losses.isnan().all()
    assert curves_of(Strict(), images[:0], toy_templates(classifier), alphas).losses.shape == (0, 3, len(alphas))


def test_losses_are_float32_or_wider_whatever_the_classifier_computes_in(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates
) -> None:
    class Half(ToyClassifier):
        def __call__(self, images: Tensor) -> Tensor:
            return super().__call__(images).to(torch.bfloat16)

    rough = curves_of(Half(), images.float(), templates)
    exact = curves_of(classifier, images, templates)
    assert rough.losses.dtype == torch.float32
    is_same = Half()(images.float()).argmax(dim=1) == classifier(images).argmax(dim=1)
    torch.testing.assert_close(rough.losses[is_same].double(), exact.losses[is_same], atol=0.1, rtol=0.05)


def test_selection_is_what_fewer_points_and_templates_give(
    classifier: ToyClassifier, images: Tensor, templates: ClassTemplates
) -> None:
    wide, narrow = Curves(ALPHAS), Curves((0.2, 1.0))
    selected = wide.selected(curves_of(classifier, images, templates), narrow, 2)
    direct = curves_of(classifier, images, templates.first(2), narrow.alphas)
    torch.testing.assert_close(selected.losses, direct.losses)
    with pytest.raises(DetectorInputError, match=r"hold no selection of alphas \[0\.3\]"):
        narrow.selected(direct, Curves((0.3,)), 1)
    with pytest.raises(DetectorInputError, match=r"hold no selection .* and 3 templates"):
        narrow.selected(direct, narrow, 3)


def test_a_joined_question_answers_both() -> None:
    joined = Curves((0.0, 0.5, 1.0)).joined(Curves((0.0, 0.25, 1.0)))
    assert joined == Curves((0.0, 0.25, 0.5, 1.0))


def test_barrier_of_a_hill_is_its_top_and_its_rise() -> None:
    hill = torch.tensor([1.0, 3.0, 5.0, 2.0, 0.5]).expand(4, 2, 5)
    made = LossCurves(hill, hill)
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
        ((float("nan"),), "ascending"),
    ],
)
def test_alphas_that_are_no_path_are_refused(alphas: tuple[float, ...], message: str) -> None:
    with pytest.raises(DetectorInputError, match=message):
        Curves(alphas)


def test_images_of_another_shape_or_type_are_refused(classifier: ToyClassifier, templates: ClassTemplates) -> None:
    with pytest.raises(DetectorInputError, match=r"\('n', 1, 4, 4\) were expected, got \(2, 3, 4, 4\)"):
        curves_of(classifier, torch.rand(2, 3, 4, 4), templates)
    with pytest.raises(DetectorInputError, match=r"convert bytes with modeguard\.detector\.to_pixels"):
        curves_of(classifier, torch.zeros((2, 1, 4, 4), dtype=torch.uint8), templates)
