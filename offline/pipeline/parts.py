"""Work that is done part by part, each part kept as soon as it is done, so that an interrupted run goes on.

Who does it is the engine's affair: a function like `map`. The work and its parts can be pickled, and a part brings the
seed of its random numbers, so an engine may do them in another process or on another machine with the same outcome.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from modeguard.offline.pipeline.artifacts import ArtifactEntry
from modeguard.offline.seeds import seed_of


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the images that work is done on.

    Attributes:
        number: from 0.
        rows: which of the images.
        seed: of all that is random in this part.
    """

    number: int
    rows: slice
    seed: int

    @property
    def n_images(self) -> int:
        """How many images there are in it."""
        return int(self.rows.stop - self.rows.start)


class Work(Protocol):
    """What is done to each part."""

    def __call__(self, part: Part) -> dict[str, Tensor]:
        """The tensors that are kept of a part, on the CPU."""
        ...


WorkEngine = Callable[[Work, Iterable[Part]], Iterator[dict[str, Tensor]]]
"""Does the work on every part; the outcomes come in the order of the parts."""


def in_turn(work: Work, parts: Iterable[Part]) -> Iterator[dict[str, Tensor]]:
    """The engine of one process: one part after the other."""
    return map(work, parts)


def parts_of(n_images: int, size: int, seed: str) -> list[Part]:
    """Parts of at most `size` images, each with a seed that follows from `seed` and its number."""
    starts = range(0, n_images, size)
    return [
        Part(number, slice(start, min(start + size, n_images)), seed_of(f"{seed}/{number}"))
        for number, start in enumerate(starts)
    ]


def all_parts(
    work: Work,
    parts: Sequence[Part],
    entry: ArtifactEntry,
    *,
    engine: WorkEngine,
    on_images: Callable[[int], object],
) -> list[dict[str, Tensor]]:
    """The outcome of every part, those that are kept already read back, the others made and kept.

    Args:
        work: what is done to a part.
        parts: all of them.
        entry: where the whole will be kept; its parts are kept beside it until then.
        engine: does the work.
        on_images: called with the number of images of each part that is there.
    """
    shards = entry.shards(len(parts))
    missing = shards.missing()
    for part in parts:
        if part.number not in missing:
            on_images(part.n_images)
    for number, outcome in zip(missing, engine(work, [parts[number] for number in missing]), strict=True):
        shards.write_shard(number, outcome)
        on_images(parts[number].n_images)
    return [shards.read_shard(part.number).tensors for part in parts]
