"""The method, tensors in and tensors out: paths, loss curves, features, neighbours, calibration, stability."""

from detector.calibration import conformal_p_values
from detector.classifier import Classifier, batched_logits
from detector.config import DetectorConfig
from detector.detector import Detections, Detector, FitSet, detect, fit_detector
from detector.errors import DetectorInputError, ModeguardError
from detector.features import FEATURES, FeatureFamily, Observation, extract_features, observe
from detector.loss_curve import LossCurves, barrier_gaps, barrier_heights, loss_curves
from detector.neighbors import Neighbours, fit_neighbours
from detector.pixels import to_bytes, to_pixels
from detector.stability import gaussian_draws, noise_response, persistence, stability
from detector.templates import ClassTemplates

__all__ = [
    "FEATURES",
    "ClassTemplates",
    "Classifier",
    "Detections",
    "Detector",
    "DetectorConfig",
    "DetectorInputError",
    "FeatureFamily",
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
