"""One image's verdict in plain values: what the library, the shell, the server and the report all say it with."""

from dataclasses import dataclass
from typing import Literal

NoVerdict = Literal["no_template_for_class", "score_not_finite"]
"""Why there is no verdict; the shell and the server answer with these words."""

NO_TEMPLATE: NoVerdict = "no_template_for_class"
NOT_FINITE: NoVerdict = "score_not_finite"

CurveValues = tuple[tuple[float | None, ...], ...]
"""(n_templates, n_points); None where the classifier's answer is not finite, as JSON has no word for that."""

VERDICT_WORDS: dict[bool | None, str] = {True: "adversarial", False: "natural", None: "no verdict"}
"""What people read: by `Verdict.is_flagged`, or the member `is_adversarial` of the server's answers."""


@dataclass(frozen=True, slots=True)
class CurvesShown:
    """The curves that explain a verdict.

    Attributes:
        alphas: points of the path, 0 at the image and 1 at the template.
        losses: cross-entropy of the predicted class along the path to each template.
        margins: logit of the predicted class minus the largest other one, likewise.
    """

    alphas: tuple[float, ...]
    losses: CurveValues
    margins: CurveValues


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one image.

    Attributes:
        predicted: index of the classifier's class.
        score: any real number, higher is more adversarial; None where there is no verdict.
        p_value: in (0, 1], how often a natural image scores at least as high; None with the score.
        is_flagged: whether the p-value is at most the target FPR; None with the score.
        reason: why there is no verdict; None where there is one.
        curves: None unless asked for, or where the predicted class has no template.
    """

    predicted: int
    score: float | None
    p_value: float | None
    is_flagged: bool | None
    reason: NoVerdict | None
    curves: CurvesShown | None = None

    @property
    def word(self) -> str:
        """The verdict in a word: "adversarial", "natural" or "no verdict"."""
        return VERDICT_WORDS[self.is_flagged]
