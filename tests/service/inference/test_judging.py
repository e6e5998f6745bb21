"""Judging images: what is said of one does not depend on the others, nor on how the rows are sliced."""

import pytest

from modeguard.detector import Sliced
from modeguard.service.inference import ServedBundle
from modeguard.service.inference.judging import judge
from modeguard.templates_store.bundles import Bundle
from modeguard.templates_store.images import decode_image
from tests.service.toy import BLUE, NEARLY_GREY, RED, image_file


def test_verdicts_do_not_depend_on_the_other_images_of_a_request(bundle: Bundle) -> None:
    colours = [RED, NEARLY_GREY, BLUE, (30, 200, 40)]
    images = [decode_image(image_file(colour), bundle.manifest.input) for colour in colours]
    together = judge(ServedBundle(bundle, Sliced(bundle.classifier, 3)), images, with_curves=True)
    for image, verdict in zip(images, together, strict=True):
        (alone,) = judge(ServedBundle(bundle, bundle.classifier), [image], with_curves=True)
        assert (alone.predicted, alone.is_flagged, alone.reason) == (
            verdict.predicted,
            verdict.is_flagged,
            verdict.reason,
        )
        assert alone.score == pytest.approx(verdict.score, abs=1e-6)
