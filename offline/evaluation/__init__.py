"""Measuring a detector: ranking, operating points and their intervals, and the table that shows them.

Not here: where images, attacks and detectors come from; what is measured is handed in as values.
"""

from modeguard.offline.evaluation.metrics import (
    METRICS,
    EvaluationError,
    Interval,
    PairedScores,
    auroc,
    measure,
    tpr_at_fpr,
)
from modeguard.offline.evaluation.results import (
    BOOTSTRAP_SEED,
    AttackFigures,
    Evaluation,
    EvaluationConfig,
    HeldOut,
    HeldOutAttack,
    evaluate,
    flagged_shares,
    paired_scores,
)
from modeguard.offline.evaluation.table import evaluation_table

__all__ = [
    "BOOTSTRAP_SEED",
    "METRICS",
    "AttackFigures",
    "Evaluation",
    "EvaluationConfig",
    "EvaluationError",
    "HeldOut",
    "HeldOutAttack",
    "Interval",
    "PairedScores",
    "auroc",
    "evaluate",
    "evaluation_table",
    "flagged_shares",
    "measure",
    "paired_scores",
    "tpr_at_fpr",
]
