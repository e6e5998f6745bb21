"""Choosing a detector: the grid of choices, and trying each by cross-validation.

Not here: what a detector is (`modeguard.detector`), and measuring the chosen one (`evaluation`).
"""

from modeguard.offline.tuning.grid import DetectorGrid, TuningError
from modeguard.offline.tuning.trials import Fitted, LabelledObservation, Rotation, Trial, best_trial, run_trials

__all__ = [
    "DetectorGrid",
    "Fitted",
    "LabelledObservation",
    "Rotation",
    "Trial",
    "TuningError",
    "best_trial",
    "run_trials",
]
