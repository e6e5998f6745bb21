"""Measuring a detector on the images that were held out: figures for each attack, and over all."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from modeguard.detector import Detector, judge
from modeguard.detector.questions import Observation
from modeguard.offline.evaluation.metrics import EvaluationError, Interval, PairedScores, measure
from modeguard.offline.tuning import Fitted, LabelledObservation, Trial
from modeguard.templates_store.bundles import plain_of

BOOTSTRAP_SEED = 0


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """How sure the figures are said to be.

    Attributes:
        n_bootstrap: resamples of the test images.
        confidence: of the intervals, within (0, 1).
    """

    n_bootstrap: int = 1000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.n_bootstrap < 1 or not 0 < self.confidence < 1:
            raise EvaluationError(
                f"n_bootstrap is at least 1 and confidence within (0, 1), got {self.n_bootstrap} and {self.confidence}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutAttack:
    """One attack, as a detector is measured on it.

    Attributes:
        norm: the norm that the attack bounds or minimises, "linf" or "l2".
        n_attacked: correctly classified images attacked, over all folds.
        distances: (n_succeeded,) sizes of the successful perturbations, over all folds.
        pairs: natural twins and adversarial images of the test fold.
    """

    norm: str
    n_attacked: int
    distances: Tensor
    pairs: LabelledObservation


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """What a detector is measured on, and nothing else.

    Attributes:
        natural: every natural source of the test fold, once.
        attacks: by the name in the recipe.
        natural_accuracy: the classifier's accuracy on the calibration images, natural as they come.
    """

    natural: Observation
    attacks: Mapping[str, HeldOutAttack]
    natural_accuracy: float


@dataclass(frozen=True, slots=True)
class AttackFigures:
    """One detector against one attack, on pairs of an adversarial image and its natural twin.

    Attributes:
        attack: name in the recipe.
        norm: the norm that the attack bounds or minimises, "linf" or "l2".
        n_attacked: correctly classified images attacked, over all folds.
        n_succeeded: how many of them the classifier then got wrong.
        median_norm: median size of the successful perturbations in the attack's norm, pixels in [0, 1].
        n_test_pairs: pairs in the test fold, which the figures below are of.
        balanced_accuracy: mean of TPR and TNR at the scorer's own decision.
        auroc: area under the ROC curve.
        aupr: average precision, adversarial the positive class.
        tpr_at_1_fpr: TPR where 1 % of the natural twins are flagged.
        tpr_at_5_fpr: TPR where 5 % of the natural twins are flagged.
        fpr_at_95_tpr: FPR where 95 % of the adversarial images are flagged.
        flagged: fraction of the adversarial test images that the calibrated threshold flags.
        flagged_natural: fraction of their natural twins that it flags.
        n_abstained: test images of either kind without verdict, left out of the figures.
    """

    attack: str
    norm: str
    n_attacked: int
    n_succeeded: int
    median_norm: float
    n_test_pairs: int
    balanced_accuracy: Interval
    auroc: Interval
    aupr: Interval
    tpr_at_1_fpr: Interval
    tpr_at_5_fpr: Interval
    fpr_at_95_tpr: Interval
    flagged: float
    flagged_natural: float
    n_abstained: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A detector measured on the test fold of its recipe.

    Attributes:
        attacks: the figures of each attack.
        mean_auroc: mean over the attacks.
        worst_attack: name of the attack with the lowest AUROC.
        chosen: the trial of the cross-validation that decided.
        n_trials: how many combinations were tried.
        n_fit_natural, n_fit_adversarial: reference images of the detector.
        n_calibration: natural images that the threshold rests on.
        natural_accuracy: see `HeldOut`.
    """

    attacks: tuple[AttackFigures, ...]
    mean_auroc: float
    worst_attack: str
    chosen: Trial
    n_trials: int
    n_fit_natural: int
    n_fit_adversarial: int
    n_calibration: int
    natural_accuracy: float

    @property
    def worst(self) -> AttackFigures:
        """The figures of the worst attack."""
        return next(figures for figures in self.attacks if figures.attack == self.worst_attack)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        values = dataclasses.asdict(self)
        values["chosen"]["config"] = plain_of(self.chosen.config)
        return values


def evaluate(
    fitted: Fitted,
    held_out: HeldOut,
    config: EvaluationConfig,
    *,
    on_attack: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Measure a detector on pairs of successful attacks and their natural twins.

    Args:
        fitted: the detector.
        held_out: images that neither chose nor fitted it.
        config: of the intervals.
        on_attack: called when an attack has been measured.

    Raises:
        EvaluationError: if an attack left nothing to measure.
    """
    attacks = []
    for name, attack in held_out.attacks.items():
        attacks.append(_figures(fitted.detector, name, attack, config))
        on_attack()
    is_adversarial = fitted.references.is_adversarial
    return Evaluation(
        attacks=tuple(attacks),
        mean_auroc=float(np.mean([figures.auroc.value for figures in attacks])),
        worst_attack=min(attacks, key=lambda figures: figures.auroc.value).attack,
        chosen=fitted.best,
        n_trials=len(fitted.trials),
        n_fit_natural=int((~is_adversarial).sum()),
        n_fit_adversarial=int(is_adversarial.sum()),
        n_calibration=len(fitted.detector.calibration_scores),
        natural_accuracy=held_out.natural_accuracy,
    )


def paired_scores(detector: Detector, pairs: LabelledObservation) -> PairedScores:
    """Scores of pairs, abstentions left out."""
    found = judge(detector, pairs.observation)
    return PairedScores(
        natural=found.score[~found.is_abstained & ~pairs.is_adversarial].numpy(),
        adversarial=found.score[~found.is_abstained & pairs.is_adversarial].numpy(),
        decision=detector.scorer.decision,
    )


def flagged_shares(detector: Detector, pairs: LabelledObservation) -> tuple[float, float]:
    """Fractions of the natural and of the adversarial images with a verdict that the calibrated threshold flags."""
    found = judge(detector, pairs.observation)
    natural, adversarial = (
        float(found.is_flagged[~found.is_abstained & kind].double().mean())
        for kind in (~pairs.is_adversarial, pairs.is_adversarial)
    )
    return natural, adversarial


def _figures(detector: Detector, name: str, attack: HeldOutAttack, config: EvaluationConfig) -> AttackFigures:
    scores = paired_scores(detector, attack.pairs)
    intervals = measure(
        scores,
        n_bootstrap=config.n_bootstrap,
        confidence=config.confidence,
        generator=np.random.default_rng(BOOTSTRAP_SEED),
    )
    flagged_natural, flagged = flagged_shares(detector, attack.pairs)
    n_images = len(attack.pairs.is_adversarial)
    return AttackFigures(
        attack=name,
        norm=attack.norm,
        n_attacked=attack.n_attacked,
        n_succeeded=len(attack.distances),
        median_norm=float(attack.distances.median()),
        n_test_pairs=n_images // 2,
        flagged=flagged,
        flagged_natural=flagged_natural,
        n_abstained=n_images - len(scores.natural) - len(scores.adversarial),
        **intervals,
    )
