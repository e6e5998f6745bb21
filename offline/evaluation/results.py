"""What a build comes to: its evaluation on the test fold, and the bundle that carries it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeguard.detector import Detector, Observation, conformal_p_values, extract_features
from modeguard.offline.evaluation.metrics import AttackResult, PairedScores, Scores, measure
from modeguard.offline.pipeline.build import CALIBRATION, Build
from modeguard.offline.tuning.trials import LabelledObservation, Trial
from modeguard.templates_store.bundles.bundle import write_bundle

_BOOTSTRAP_SEED = 0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A detector measured on the test fold of its recipe.

    Attributes:
        attacks: one result an attack.
        mean_auroc: mean over the attacks.
        worst_attack: name of the attack with the lowest AUROC.
        chosen: the trial of the cross-validation that decided.
        n_trials: how many combinations were tried.
        n_fit_natural, n_fit_adversarial: reference images of the detector.
        n_calibration: natural images that the threshold rests on.
        natural_accuracy: the classifier's accuracy on the calibration images, natural as they come.
    """

    attacks: tuple[AttackResult, ...]
    mean_auroc: float
    worst_attack: str
    chosen: Trial
    n_trials: int
    n_fit_natural: int
    n_fit_adversarial: int
    n_calibration: int
    natural_accuracy: float

    @property
    def worst(self) -> AttackResult:
        """The result of the worst attack."""
        return next(result for result in self.attacks if result.attack == self.worst_attack)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return dataclasses.asdict(self)


def evaluate(build: Build) -> Evaluation:
    """Measure a build's detector on its test fold, on pairs of successful attacks and their natural twins."""
    fitted = build.fitted
    with build.console.progress("evaluating", total=len(build.recipe.attacks)) as progress:
        attacks = []
        for name in build.recipe.attacks:
            attacks.append(_attack_result(build, name))
            progress.advance()
    is_adversarial = fitted.detector.neighbours.is_adversarial
    return Evaluation(
        attacks=tuple(attacks),
        mean_auroc=float(np.mean([result.auroc.value for result in attacks])),
        worst_attack=min(attacks, key=lambda result: result.auroc.value).attack,
        chosen=fitted.best,
        n_trials=len(fitted.trials),
        n_fit_natural=int((~is_adversarial).sum()),
        n_fit_adversarial=int(is_adversarial.sum()),
        n_calibration=len(fitted.detector.calibration_scores),
        natural_accuracy=_natural_accuracy(build),
    )


def paired_scores(detector: Detector, pairs: LabelledObservation) -> PairedScores:
    """Scores of pairs, abstentions left out."""
    scores, is_adversarial = _scores(detector, pairs.observation), pairs.is_adversarial
    is_scored = ~scores.isnan()
    return PairedScores(
        natural=scores[is_scored & ~is_adversarial].numpy(), adversarial=scores[is_scored & is_adversarial].numpy()
    )


def flagged_share(detector: Detector, scores: Scores) -> float:
    """Fraction of scores (n,) that the calibrated threshold flags."""
    p_values = conformal_p_values(torch.from_numpy(scores), detector.calibration_scores)
    return float((p_values <= detector.config.target_fpr).double().mean())


def write_build(build: Build, evaluation: Evaluation, path: Path) -> str:
    """Write the bundle of a build.

    Args:
        build: what was built.
        evaluation: how it was measured, kept in the manifest.
        path: the bundle's directory.

    Returns:
        The bundle's digest.
    """
    recipe = build.recipe
    return write_bundle(
        path,
        name=recipe.name,
        detector=build.fitted.detector,
        classifier=build.classifier,
        class_names=build.dataset.class_names,
        input_spec=recipe.input_spec,
        seeds={
            "recipe": recipe.seed,
            "data": recipe.data.seed,
            "folds": recipe.split.seed,
            "training": recipe.training.seed,
            "noise": build.fitted.detector.config.noise_seed,
            "bootstrap": _BOOTSTRAP_SEED,
        },
        measured=evaluation.to_dict(),
    )


def _scores(detector: Detector, observation: Observation) -> torch.Tensor:
    features = extract_features(detector.config, observation)
    scores = torch.full((len(features),), float("nan"), dtype=torch.float64)
    is_judged = features.isfinite().all(dim=1)  # as `detect` has it
    scores[is_judged] = detector.neighbours.score(features[is_judged])
    return scores


def _attack_result(build: Build, name: str) -> AttackResult:
    detector, config = build.fitted.detector, build.recipe.evaluation
    attacked, pairs = build.attacked(name).value, build.pairs(name, build.folds.is_test)
    scored = paired_scores(detector, pairs)
    intervals = measure(
        scored,
        n_bootstrap=config.n_bootstrap,
        confidence=config.confidence,
        generator=np.random.default_rng(_BOOTSTRAP_SEED),
    )
    return AttackResult(
        attack=name,
        norm=build.recipe.attacks[name].attack.norm,
        n_attacked=len(attacked.source_rows),
        n_succeeded=int(attacked.is_successful.sum()),
        median_norm=float(attacked.distances[attacked.is_successful].median()),
        n_test_pairs=len(pairs.is_adversarial) // 2,
        flagged=flagged_share(detector, scored.adversarial),
        flagged_natural=flagged_share(detector, scored.natural),
        n_abstained=len(pairs.is_adversarial) - len(scored.natural) - len(scored.adversarial),
        **intervals,
    )


def _natural_accuracy(build: Build) -> float:
    labels = build.dataset.test.labels[build.roles.value.calibration]
    return float((build.observed(CALIBRATION).curves.predicted == labels).double().mean())
