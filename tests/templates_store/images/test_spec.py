"""Specifications of images that no classifier takes are refused."""

import pytest

from modeguard.templates_store.images import InputSpec, InputSpecError


@pytest.mark.parametrize("shape", [(3, 8), (2, 8, 8), (3, 0, 8), (1, 8, -8), ()])
def test_shapes_that_no_classifier_has_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(InputSpecError, match=r"shape is \(c, h, w\).* got"):
        InputSpec(shape)


def test_the_centre_must_fit_into_the_resized_image() -> None:
    assert InputSpec((3, 8, 6), resize_to=8).resize_to == 8
    with pytest.raises(InputSpecError, match="got 7"):
        InputSpec((3, 8, 6), resize_to=7)
