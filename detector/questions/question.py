"""What a question to the classifier is, and what every question is given: the answer at the image itself."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor

from modeguard.detector.errors import DetectorInputError
from modeguard.detector.records import Leaf
from modeguard.detector.rows import Classifier
from modeguard.detector.templates import ClassTemplates

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, eq=False)
class AtImage:
    """What the classifier says of n images themselves; asked once, for every question and feature family.

    Attributes:
        logits: (n, n_classes), float32 or wider.
    """

    logits: Annotated[Tensor, Leaf("n n_classes", torch.float32)]

    @property
    def predicted(self) -> Tensor:
        """(n,) int64, the class of the highest logit."""
        return self.logits.argmax(dim=1)


class Question(Protocol[Answer]):
    """One kind of question to the classifier; a record whose fields are the question's options.

    `joined` and `selected` as they are here do for a question of which a build asks one version only.
    """

    answer_type: ClassVar[type]
    """The record of the answer; all its leaves count images."""

    def ask(self, classifier: Classifier, images: Tensor, at_image: AtImage, templates: ClassTemplates) -> Answer:
        """Make the rows, ask the classifier, and put its answers together.

        Args:
            classifier: takes any number of rows, also none, see `Sliced`.
            images: (n, c, h, w) pixels in [0, 1]; n may be 0. No answer may depend on another image.
            at_image: what it says of the images themselves.
            templates: as many a class as the detector looks at, on the device of the images.
        """
        ...

    def n_rows(self, n_templates: int) -> int:
        """Rows that an image costs beside its own, at the most; about, where that depends on the answers."""
        ...

    def joined(self, other: Self) -> Self:
        """A question whose answer holds the answers of both.

        Raises:
            DetectorInputError: if there is none.
        """
        if self != other:
            raise DetectorInputError(f"no one question answers both {self} and {other}; choose one of them")
        return self

    def selected(self, answer: Answer, question: Self, n_templates: int) -> Answer:
        """The answer to a narrower question, taken from the answer to this one; the classifier is not asked.

        Args:
            answer: to this question.
            question: what shall be answered.
            n_templates: as many a class as it shall be answered for.

        Raises:
            DetectorInputError: if the answer does not hold it.
        """
        if self != question:
            raise DetectorInputError(f"the answer to {self} holds none to {question}")
        return answer


AnyQuestion = Question[Any]
