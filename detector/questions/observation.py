"""Asking questions about images, slice by slice, and what was answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from modeguard.detector.questions.question import AnyQuestion, AtImage
from modeguard.detector.records import from_tensors, join, pick, under
from modeguard.detector.rows import ROWS_PER_CALL, Classifier, check_images, in_slices
from modeguard.detector.templates import ClassTemplates

_BYTES_AT_ONCE = 64 * 2**20
"""About as much is made at a time in rows; how many go through the classifier at a time is `Sliced`'s affair."""


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What the classifier said of n images.

    Attributes:
        questions: what was asked beside the images themselves, by name.
        at_image: what it says of the images themselves.
        answers: to the questions, by name.
    """

    questions: Mapping[str, AnyQuestion]
    at_image: AtImage
    answers: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.at_image.logits)


def observe(
    questions: Mapping[str, AnyQuestion], classifier: Classifier, images: Tensor, templates: ClassTemplates
) -> Observation:
    """Ask the classifier about the images themselves, and then the questions.

    Rows are made a slice of images at a time, so that memory does not grow with the images, and the classifier gets at
    most `ROWS_PER_CALL` of them in a call; wrap it in `Sliced` for fewer or more. Differentiable with respect to the
    images as far as the questions are.

    Args:
        questions: by name.
        classifier: see `Classifier`.
        images: (n, c, h, w) pixels in [0, 1], on the device of the templates; n may be 0.
        templates: as many a class as the questions shall look at.

    Raises:
        DetectorInputError: if the images have another shape or type than the classifier takes.
    """
    check_images(classifier, images)
    sliced = in_slices(classifier)
    at_image = AtImage(sliced(images))
    answers = {name: _answer_of(question, sliced, images, at_image, templates) for name, question in questions.items()}
    return Observation(questions, at_image, answers)


def observation_from_tensors(questions: Mapping[str, AnyQuestion], tensors: Mapping[str, Tensor]) -> Observation:
    """An observation that was stored with `to_tensors`.

    Args:
        questions: what was asked.
        tensors: by name.

    Raises:
        RecordError: if they are not the answers to these questions.
    """
    stored = under("answers", tensors)
    answers: dict[str, Any] = {
        name: from_tensors(question.answer_type, under(name, stored)) for name, question in questions.items()
    }
    at_image = from_tensors(AtImage, under("at_image", tensors))
    return Observation(questions, at_image, answers)


def _answer_of(
    question: AnyQuestion, classifier: Classifier, images: Tensor, at_image: AtImage, templates: ClassTemplates
) -> Any:
    n_rows_at_once = max(ROWS_PER_CALL, _BYTES_AT_ONCE // max(1, images[:1].nbytes))  # large images fill a call too
    n_at_once = max(1, n_rows_at_once // max(1, question.n_rows(templates.n_templates)))
    # no images make one empty slice, whose answer has the right shape
    slices = [slice(start, start + n_at_once) for start in range(0, max(1, len(images)), n_at_once)]
    return join([question.ask(classifier, images[part], pick(at_image, part), templates) for part in slices])
