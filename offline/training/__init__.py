"""Training a classifier from random weights, resumable after every epoch.

Labels and cross-entropy only, so that the loss landscape which the method measures is that of an ordinary classifier.
Loading ready weights belongs to `templates_store`, reading images to `offline.data`.
"""

from modeguard.offline.training.checkpoints import TrainingError
from modeguard.offline.training.config import TrainingConfig
from modeguard.offline.training.training import EpochRecord, TrainingResult, train_classifier

__all__ = ["EpochRecord", "TrainingConfig", "TrainingError", "TrainingResult", "train_classifier"]
