"""The pipeline: the steps from a recipe to a bundle and a report, each kept and redone only when it must be.

Not here: what the steps do; attacks, tuning, evaluation and the report have rooms of their own and know no build.
"""

from modeguard.offline.pipeline.artifacts import ArtifactError, ArtifactStore, canonical_json
from modeguard.offline.pipeline.build import Build
from modeguard.offline.pipeline.parts import Part, Work, WorkEngine, in_turn

__all__ = ["ArtifactError", "ArtifactStore", "Build", "Part", "Work", "WorkEngine", "canonical_json", "in_turn"]
