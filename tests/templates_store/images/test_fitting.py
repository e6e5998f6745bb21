"""Images of any size become the classifier's size, in the way that torchvision does it, or are refused."""

import pytest
from PIL import Image

from modeguard.templates_store.images import InputSpec, InvalidImage, decode_image
from tests.templates_store.images.image_files import RGB_8X6, as_tensor, picture, saved


def test_resizing_the_shorter_side_and_cutting_the_centre_is_torchvisions() -> None:
    torchvision = pytest.importorskip("torchvision.transforms")
    for size in [(60, 41), (41, 60), (33, 33), (200, 30)]:
        image = picture(size=size)
        usual = torchvision.Compose([torchvision.Resize(32), torchvision.CenterCrop(28)])
        decoded = decode_image(saved(image), InputSpec((3, 28, 28), resize_to=32))
        assert decoded.equal(as_tensor(usual(image)))


def test_a_whole_image_is_resized_only_where_that_is_allowed() -> None:
    data = saved(Image.new("RGB", (50, 20), (1, 2, 3)))
    assert decode_image(data, RGB_8X6).flatten(1).unique(dim=1).flatten().tolist() == [1, 2, 3]
    with pytest.raises(InvalidImage, match="8 x 6 pixels was expected, got 50 x 20") as caught:
        decode_image(data, InputSpec((3, 6, 8), allow_resize=False))
    assert caught.value.reason == "wrong_size"


def test_a_strip_whose_resizing_would_take_much_memory_is_refused() -> None:
    assert decode_image(saved(Image.new("L", (65_535, 1))), RGB_8X6).shape == (3, 6, 8)
    with pytest.raises(InvalidImage) as caught:
        decode_image(saved(Image.new("L", (65_536, 1))), RGB_8X6)
    assert caught.value.reason == "too_elongated"


def test_a_resized_strip_may_not_grow_beyond_the_pixel_limit() -> None:
    data, spec = saved(Image.new("L", (5000, 1))), InputSpec((1, 8, 8), resize_to=8)
    assert decode_image(data, spec, max_pixels=320_000).shape == (1, 8, 8)
    with pytest.raises(InvalidImage) as caught:
        decode_image(data, spec, max_pixels=319_999)
    assert caught.value.reason == "too_elongated"
