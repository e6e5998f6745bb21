"""The pipeline: the steps from a recipe to a bundle and a report, each kept and redone only when it must be.

Not here: what the steps do; attacks, tuning, evaluation and the report have rooms of their own and know no build.
"""

from modeguard.offline.pipeline.artifacts import ArtifactError, ArtifactStore
from modeguard.offline.pipeline.build import Build
from modeguard.offline.pipeline.parts import Engine, Part, Work, in_turn

__all__ = ["ArtifactError", "ArtifactStore", "Build", "Engine", "Part", "Work", "in_turn"]
