"""The method, tensors in and tensors out: questions to a classifier, features, scorers, calibration, verdicts.

Not here: files, HTTP, the clock, global state. Read `detect` first. Rooms: `paths`, `questions`, `scorers`. Feature
families are functions in `features`, or in a file of their own beside it, and a line of its table `FEATURES`.
"""

from modeguard.detector.calibration import (
    conformal_p_values,
    is_flagged,
    is_judged,
    smallest_calibration_set,
    threshold,
)
from modeguard.detector.config import DetectorConfig
from modeguard.detector.detect import (
    Detections,
    Detector,
    FitSet,
    detect,
    fit,
    fit_observed,
    judge,
    references_of,
    score_of,
)
from modeguard.detector.errors import DetectorInputError, ModeguardError
from modeguard.detector.features import (
    FEATURES,
    FeatureFamily,
    extract_features,
    families_of,
    questions_of,
    rows_per_image,
)
from modeguard.detector.losses import cross_entropy_and_margin
from modeguard.detector.pixels import to_bytes, to_pixels
from modeguard.detector.records import (
    Leaf,
    RecordError,
    check_shapes,
    from_tensors,
    join,
    pick,
    to_device,
    to_tensors,
    under,
)
from modeguard.detector.rows import Classifier, Counted, FeatureMapClassifier, Sliced, at_least_float32, check_images
from modeguard.detector.templates import ClassTemplates
from modeguard.detector.verdict import NO_TEMPLATE, NOT_FINITE, VERDICT_WORDS, CurvesShown, NoVerdict, Verdict

__all__ = [
    "FEATURES",
    "NOT_FINITE",
    "NO_TEMPLATE",
    "VERDICT_WORDS",
    "ClassTemplates",
    "Classifier",
    "Counted",
    "CurvesShown",
    "Detections",
    "Detector",
    "DetectorConfig",
    "DetectorInputError",
    "FeatureFamily",
    "FeatureMapClassifier",
    "FitSet",
    "Leaf",
    "ModeguardError",
    "NoVerdict",
    "RecordError",
    "Sliced",
    "Verdict",
    "at_least_float32",
    "check_images",
    "check_shapes",
    "conformal_p_values",
    "cross_entropy_and_margin",
    "detect",
    "extract_features",
    "families_of",
    "fit",
    "fit_observed",
    "from_tensors",
    "is_flagged",
    "is_judged",
    "join",
    "judge",
    "pick",
    "questions_of",
    "references_of",
    "rows_per_image",
    "score_of",
    "smallest_calibration_set",
    "threshold",
    "to_bytes",
    "to_device",
    "to_pixels",
    "to_tensors",
    "under",
]
