"""Questions to the classifier: one file a question, each a record of its own options.

Not here: what is made of the answers (`features`), and files. To add a question: write a file with a record that is a
`Question`, add one line to `QUESTIONS`, and a feature family that needs it.
"""

from modeguard.detector.questions.curves import Curves, LossCurves, barrier_gaps, barrier_heights
from modeguard.detector.questions.noise import Noise, NoiseAnswer, gaussian_draws
from modeguard.detector.questions.observation import Observation, observation_from_tensors, observe
from modeguard.detector.questions.persistence import Persistence, PersistenceAnswer
from modeguard.detector.questions.question import AnyQuestion, AtImage, Question

QUESTIONS: dict[str, type[AnyQuestion]] = {
    "curves": Curves,
    "noise": Noise,
    "persistence": Persistence,
}
"""Name to type, whose fields have defaults."""

__all__ = [
    "QUESTIONS",
    "AnyQuestion",
    "AtImage",
    "Curves",
    "LossCurves",
    "Noise",
    "NoiseAnswer",
    "Observation",
    "Persistence",
    "PersistenceAnswer",
    "Question",
    "barrier_gaps",
    "barrier_heights",
    "gaussian_draws",
    "observation_from_tensors",
    "observe",
]
