"""Work part by part: any engine gives the same, and work and parts can be sent elsewhere."""

import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modeguard.detector import to_bytes
from modeguard.detector.questions import Curves
from modeguard.offline.attacks import Pgd
from modeguard.offline.pipeline.artifacts import ArtifactStore
from modeguard.offline.pipeline.parts import Part, Work, WorkEngine, all_parts, in_turn, parts_of
from modeguard.offline.pipeline.steps import AttackWork, ObserveWork
from tests.conftest import ToyClassifier, toy_templates

CPU = torch.device("cpu")


def elsewhere(work: Work, parts: Iterable[Part]) -> Iterator[dict[str, Tensor]]:
    """What an engine of several processes does to work and parts, the later ones first."""
    sent = pickle.dumps((work, list(parts)))
    received: tuple[Work, list[Part]] = pickle.loads(sent)
    outcomes = {part.number: received[0](part) for part in reversed(received[1])}
    return iter([outcomes[part.number] for part in received[1]])


def attack_work() -> Work:
    classifier = ToyClassifier()
    images = to_bytes(torch.rand((30, 1, 4, 4), generator=torch.Generator().manual_seed(1)))
    return AttackWork(Pgd(epsilon=0.2, n_steps=3), classifier, images, classifier(images / 255).argmax(dim=1), CPU)


def observe_work() -> Work:
    classifier = ToyClassifier()
    pixels = torch.rand((30, 1, 4, 4), generator=torch.Generator().manual_seed(1))
    return ObserveWork({"curves": Curves((0.0, 0.5, 1.0))}, classifier, pixels, toy_templates(classifier), CPU)


def test_parts_cover_the_images_once_and_have_seeds_of_their_own() -> None:
    parts = parts_of(10, 4, "a")
    assert [(part.number, part.rows, part.n_images) for part in parts] == [
        (0, slice(0, 4), 4),
        (1, slice(4, 8), 4),
        (2, slice(8, 10), 2),
    ]
    assert len({part.seed for part in (*parts, *parts_of(10, 4, "b"))}) == 6
    assert parts_of(10, 4, "a") == parts


@pytest.mark.parametrize("work", [attack_work(), observe_work()], ids=["attack", "observe"])
def test_every_engine_gives_the_same_bit_for_bit(work: Work, tmp_path: Path) -> None:
    def made_by(engine: WorkEngine, name: str) -> list[dict[str, Tensor]]:
        told: list[int] = []
        entry = ArtifactStore(tmp_path).entry(name, 64 * "0")
        outcomes = all_parts(work, parts_of(30, 8, "seed"), entry, engine=engine, on_images=told.append)
        assert sum(told) == 30
        return outcomes

    for here, there in zip(made_by(in_turn, "here"), made_by(elsewhere, "there"), strict=True):
        assert here.keys() == there.keys()
        assert all(torch.equal(here[name], there[name]) for name in here)


def test_parts_that_are_kept_are_not_done_again(tmp_path: Path) -> None:
    work, entry, parts = observe_work(), ArtifactStore(tmp_path).entry("step", 64 * "0"), parts_of(30, 8, "seed")
    done: list[int] = []

    def interrupted(work: Work, parts: Iterable[Part]) -> Iterator[dict[str, Tensor]]:
        for part in parts:
            if len(done) == 2:
                raise KeyboardInterrupt
            done.append(part.number)
            yield work(part)

    def watched(work: Work, parts: Iterable[Part]) -> Iterator[dict[str, Tensor]]:
        for part in parts:
            done.append(part.number)
            yield work(part)

    with pytest.raises(KeyboardInterrupt):
        all_parts(work, parts, entry, engine=interrupted, on_images=lambda _: None)
    outcomes = all_parts(work, parts, entry, engine=watched, on_images=lambda _: None)
    assert done == [0, 1, 2, 3]
    assert len(outcomes) == 4
