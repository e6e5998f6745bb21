"""An evaluation as a table on the console."""

from modeguard.offline.console import Console
from modeguard.offline.evaluation.metrics import Interval
from modeguard.offline.evaluation.results import Evaluation

__all__ = ["evaluation_table"]

_COLUMNS = (
    "attack",
    "pairs",
    "AUROC %",
    "AUPR %",
    "TPR@1%FPR",
    "TPR@5%FPR",
    "FPR@95%TPR",
    "balanced acc.",
    "flagged",
    "natural flagged",
    "median norm",
)


def evaluation_table(console: Console, evaluation: Evaluation) -> None:
    """Print how a detector did: a row an attack, then the mean and the worst in words. All rates in per cent."""
    rows = [
        [
            result.attack,
            result.n_test_pairs,
            f"{_percent(result.auroc.value)} [{_ends(result.auroc)}]",
            *(
                _percent(interval.value)
                for interval in (
                    result.aupr,
                    result.tpr_at_1_fpr,
                    result.tpr_at_5_fpr,
                    result.fpr_at_95_tpr,
                    result.balanced_accuracy,
                )
            ),
            _percent(result.flagged),
            _percent(result.flagged_natural),
            f"{result.median_norm:.3g} ({result.norm})",
        ]
        for result in evaluation.attacks
    ]
    fpr = evaluation.chosen.config.target_fpr
    console.table(f"evaluation on the test fold, %; verdicts at a target FPR of {100 * fpr:g} %", _COLUMNS, rows)
    worst = evaluation.worst
    console.say(
        f"mean AUROC {_percent(evaluation.mean_auroc)} %, worst attack {worst.attack} with "
        f"{_percent(worst.auroc.value)} %; {evaluation.chosen.n_rows} rows an image; classifier's accuracy on "
        f"{evaluation.n_calibration} natural images {_percent(evaluation.natural_accuracy)} %"
    )


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f}"


def _ends(interval: Interval) -> str:
    return f"{_percent(interval.low)}, {_percent(interval.high)}"
