"""What a detector is made of: the choices that the offline pipeline tunes and a bundle carries."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modeguard.detector.calibration import smallest_calibration_set
from modeguard.detector.errors import DetectorInputError
from modeguard.detector.questions import QUESTIONS, AnyQuestion
from modeguard.detector.scorers import NeighborsOptions, ScorerOptions


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """Choices of one detector.

    Attributes:
        features: names of feature families, see `modeguard.detector.FEATURES`.
        questions: options of the questions that the families need, by name; one that is not here has its defaults.
        n_templates: templates a class.
        n_logits: how many of the logits, in descending order, the family "sorted_logits" keeps at the most.
        scorer: options of the scorer.
        target_fpr: rate of natural images that may be flagged, within (0, 1).
    """

    features: tuple[str, ...] = ("loss_curve", "sorted_logits")
    questions: Mapping[str, AnyQuestion] = field(default_factory=dict)
    n_templates: int = 1
    n_logits: int = 100
    scorer: ScorerOptions = NeighborsOptions()  # noqa: RUF009 - frozen
    target_fpr: float = 0.05

    def __post_init__(self) -> None:
        smallest_calibration_set(self.target_fpr)
        if min(self.n_templates, self.n_logits) < 1:
            raise DetectorInputError(
                f"n_templates and n_logits are at least 1, got {self.n_templates} and {self.n_logits}"
            )
        if not self.features or len(set(self.features)) != len(self.features):
            raise DetectorInputError(f"features are one or more different families, got {self.features}")
        # a name that no family asks by would be passed over, and the question asked with its defaults
        for name, question in self.questions.items():
            if name not in QUESTIONS or not isinstance(question, QUESTIONS[name]):
                raise DetectorInputError(
                    f"questions are some of {', '.join(QUESTIONS)}, each of its own type, got {name} = {question}"
                )
