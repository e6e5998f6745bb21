"""Choosing a detector: the grid, its agreement with scikit-learn and with the detector that is then fitted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from modeguard.detector import (
    ClassTemplates,
    Counted,
    DetectorConfig,
    extract_features,
    pick,
    questions_of,
    rows_per_image,
)
from modeguard.detector.paths import evenly_spaced
from modeguard.detector.questions import Curves, Noise, observe
from modeguard.detector.scorers import Weights
from modeguard.offline.tuning import (
    DetectorGrid,
    LabelledObservation,
    Rotation,
    Trial,
    TuningError,
    best_trial,
    run_trials,
)
from tests.conftest import ToyClassifier

GRID = DetectorGrid(
    n_points=(3, 5),
    n_templates=(1, 3),
    features=(("loss_curve", "sorted_logits"), ("margin_curve", "noise_margin")),
    n_neighbors=(3, 7),
    weights=("uniform", "distance"),
    metric=("euclidean", "manhattan"),
    scaling=("none", "standard", "robust"),
    n_noise_draws=2,
)


@pytest.fixture
def rotations(classifier: ToyClassifier, templates: ClassTemplates, images: Tensor) -> list[Rotation]:
    """Two turns; in the second the other images validate."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    both = torch.cat([images, (images + 0.3 * noise).clamp(0, 1)])

    def labelled(rows: Tensor) -> LabelledObservation:
        return LabelledObservation(observe(GRID.questions(), classifier, both[rows], templates), rows >= 64, rows % 64)

    first, second = torch.arange(0, 40), torch.arange(40, 64)
    return [
        Rotation(labelled(torch.cat([fit, fit + 64])), {"noise": labelled(torch.cat([validation, validation + 64]))})
        for fit, validation in ((first, second), (second, first))
    ]


def test_every_combination_is_tried_once(rotations: list[Rotation]) -> None:
    trials = list(run_trials(GRID, rotations))
    assert len(trials) == GRID.n_configs == 2 * 2 * 2 * 2 * 2 * 2 * 3
    assert len({repr(trial.config) for trial in trials}) == len(trials)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_a_trial_is_what_scikit_learn_says(weights: Weights, rotations: list[Rotation]) -> None:
    """The scores of both turns are ranked together."""
    grid = replace(GRID, n_points=(5,), n_templates=(3,), features=GRID.features[:1], n_neighbors=(7,))
    grid = replace(grid, weights=(weights,), metric=("euclidean",), scaling=("standard",))
    (trial,) = run_trials(grid, rotations)
    labels, scores = [], []
    for turn in rotations:
        references = extract_features(trial.config, turn.fit.observation).numpy()
        queries = extract_features(trial.config, turn.validation["noise"].observation)
        kinds = turn.fit.is_adversarial
        scaler = StandardScaler().fit(references)
        oracle = KNeighborsClassifier(7, weights=weights).fit(scaler.transform(references), kinds.numpy())
        labels.append(turn.validation["noise"].is_adversarial.numpy())
        scores.append(oracle.predict_proba(scaler.transform(queries.numpy()))[:, 1])
    expected = roc_auc_score(np.concatenate(labels), np.concatenate(scores))
    assert trial.mean_auroc == pytest.approx(expected, abs=1e-9)


def test_a_turn_without_a_pair_of_an_attack_takes_no_part_in_it(rotations: list[Rotation]) -> None:
    first, second = rotations
    nothing = first.validation["noise"]
    nobody = torch.zeros(0, dtype=torch.int64)
    nothing = LabelledObservation(pick(nothing.observation, nobody), nobody.bool(), nobody)
    (trial, *_) = run_trials(GRID, [first, replace(second, validation={"noise": nothing})])
    (alone, *_) = run_trials(GRID, [first])
    assert trial == alone
    with pytest.raises(TuningError, match=r"attacks noise left no image of both kinds .* raise n_sources"):
        next(run_trials(GRID, [replace(first, validation={"noise": nothing})]))


def test_a_turn_with_references_of_one_kind_is_refused(rotations: list[Rotation]) -> None:
    first, second = rotations
    rows = (~first.fit.is_adversarial).nonzero()[:, 0]
    natural = LabelledObservation(
        pick(first.fit.observation, rows), first.fit.is_adversarial[rows], first.fit.source[rows]
    )
    with pytest.raises(TuningError, match=r"needs natural and adversarial images, got one kind only; raise n_sources"):
        next(run_trials(GRID, [second, replace(first, fit=natural)]))


def test_what_is_asked_holds_what_every_combination_needs() -> None:
    assert GRID.questions() == {"curves": Curves((0.0, 0.25, 0.5, 0.75, 1.0)), "noise": Noise(n_draws=2)}
    assert replace(GRID, features=(("sorted_logits",),)).questions() == {}
    for config in GRID.configs():
        assert set(config.questions) == set(questions_of(config))


def test_cost_counts_the_rows_that_observing_takes(
    classifier: ToyClassifier, templates: ClassTemplates, images: Tensor
) -> None:
    for config in {rows_per_image(config): config for config in GRID.configs()}.values():
        counted = Counted(classifier)
        observe(questions_of(config), counted, images[:2], templates.first(config.n_templates))
        assert counted.n_rows == 2 * rows_per_image(config)


def trial(auroc: float, rows: int) -> Trial:
    return Trial(DetectorConfig(), auroc, {"a": auroc}, rows)


def test_the_cheapest_of_the_good_ones_is_chosen() -> None:
    trials = [trial(0.95, 50), trial(0.949, 9), trial(0.9495, 9), trial(0.90, 2)]
    assert best_trial(trials, tolerance=0.002).mean_auroc == 0.9495
    assert best_trial(trials, tolerance=0.0).mean_auroc == 0.95


def test_alphas_are_even_and_nested() -> None:
    assert evenly_spaced(3) == (0.0, 0.5, 1.0)
    assert set(evenly_spaced(5)) < set(evenly_spaced(17))
    np.testing.assert_allclose(np.diff(evenly_spaced(8)), 1 / 7, atol=1e-8)


def test_more_neighbors_than_references_are_refused(rotations: list[Rotation]) -> None:
    with pytest.raises(TuningError, match=r"there are 80 images to fit on .* n_neighbors is within 1\.\.80"):
        list(run_trials(replace(GRID, n_neighbors=(500,)), rotations))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": (("curve",),)}, r"unknown names \['curve'\]"),
        ({"metric": ("cosine",)}, r"unknown names \['cosine'\]"),
        ({"n_points": (1,)}, "n_points are at least 2"),
        ({"n_points": (10**9,)}, "n_points are at most 1000"),
        ({"n_neighbors": ()}, "n_neighbors is a list of at least one"),
        ({"tolerance": 2.0}, "tolerance"),
        ({"target_fpr": 1.0}, "target_fpr"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(GRID, **changes)  # type: ignore[arg-type]
