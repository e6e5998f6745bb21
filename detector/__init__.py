"""The method, tensors in and tensors out: paths, loss curves, features, neighbours, calibration, stability."""

from modeguard.detector.calibration import conformal_p_values
from modeguard.detector.config import DetectorConfig
from modeguard.detector.detect import Detections, Detector, FitSet, detect, fit_detector
from modeguard.detector.errors import DetectorInputError, ModeguardError
from modeguard.detector.features import FEATURES, FeatureFamily, Observation, extract_features, observe
from modeguard.detector.pixels import to_bytes, to_pixels
from modeguard.detector.questions.curves import LossCurves, barrier_gaps, barrier_heights, loss_curves
from modeguard.detector.questions.noise import gaussian_draws, noise_response, persistence, stability
from modeguard.detector.rows import Classifier, FeatureMapClassifier, batched_logits
from modeguard.detector.scorers.neighbors import Neighbours, fit_neighbours
from modeguard.detector.templates import ClassTemplates

__all__ = [
    "FEATURES",
    "ClassTemplates",
    "Classifier",
    "Detections",
    "Detector",
    "DetectorConfig",
    "DetectorInputError",
    "FeatureFamily",
    "FeatureMapClassifier",
    "FitSet",
    "LossCurves",
    "ModeguardError",
    "Neighbours",
    "Observation",
    "barrier_gaps",
    "barrier_heights",
    "batched_logits",
    "conformal_p_values",
    "detect",
    "extract_features",
    "fit_detector",
    "fit_neighbours",
    "gaussian_draws",
    "loss_curves",
    "noise_response",
    "observe",
    "persistence",
    "stability",
    "to_bytes",
    "to_pixels",
]
