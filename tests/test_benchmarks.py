"""The tables of the documents are what the benchmark results say, and every result says where it comes from."""

import json
from pathlib import Path

import pytest

from benchmarks import tables

RESULTS = sorted(tables.RESULTS.glob("*.json"))
ORIGIN = {
    "recipe": "toy",
    "command": "python -m benchmarks.of_something",
    "commit": 40 * "0",
    "machine": {"cpu": "c", "n_threads": 1, "n_cores": 2, "device": "cpu", "libraries": {"torch": "2"}},
}


def test_the_readme_shows_the_results() -> None:
    shown = (tables.ROOT / "README.md").read_text().split(tables.START)[1].split(tables.END)[0].strip()
    assert shown == tables.readme_part(tables.RESULTS)


def test_the_benchmark_page_shows_the_results() -> None:
    page = (tables.ROOT / "docs" / "benchmarks.md").read_text()
    assert page.startswith(tables.HEADER)
    for section in tables.sections(tables.RESULTS):
        assert section in page


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_names_command_commit_and_machine(path: Path) -> None:
    record = json.loads(path.read_text())
    assert record["command"].startswith("python -m benchmarks.")
    assert len(record["commit"].partition("+")[0]) == 40
    assert record["machine"]["cpu"]
    assert record["machine"]["libraries"]["torch"]


def test_deals_are_told_by_mean_and_deviation_and_compared_in_pairs() -> None:
    def deal(chosen: float, other: float) -> dict[str, object]:
        return {"detectors": {"chosen": {"auroc": {"fgsm": chosen}}, "other": {"auroc": {"fgsm": other}}}}

    record = {
        "deals": [deal(0.9, 0.8), deal(0.8, 0.6)],
        **ORIGIN,
    }
    text = tables.fold_deals(record)
    assert "### toy, 2 deals of the folds" in text
    assert "| chosen | 85.0 ± 7.1 |" in text
    assert "| other | 70.0 ± 14.1 |" in text
    assert "| chosen − other | +15.0 ± 7.1 |" in text


def test_types_are_compared_with_the_right_sign() -> None:
    def deal(*aurocs: float) -> dict[str, object]:
        kinds = [(a, b) for a in ("float32", "bfloat16") for b in ("float32", "bfloat16")]
        cases = [
            {
                "fitted_in": fitted,
                "judged_in": judged,
                "auroc": {"fgsm": auroc},
                "natural_flagged": {"fgsm": 1 - auroc},
                "still_fooling": {"fgsm": 0.5},
            }
            for (fitted, judged), auroc in zip(kinds, aurocs, strict=True)
        ]
        return {"cases": cases}

    text = tables.compute_types({"deals": [deal(0.90, 0.80, 0.85, 0.88), deal(0.92, 0.82, 0.85, 0.90)], **ORIGIN})
    assert "| fgsm | 91.0 ± 1.4 | 89.0 ± 1.4 | -2.00 ± 0.00 | -10.00 ± 0.00 | -4.00 ± 1.41 | 50.0 |" in text
    assert "| float32 | bfloat16 | 19.0 ± 1.4 |" in text


def test_a_training_is_told_with_the_interval_of_its_accuracy() -> None:
    history = [{"epoch": epoch, "loss": 1 / epoch, "test_accuracy": 0.5 + epoch / 20} for epoch in range(1, 8)]
    record = {
        "training": {"epochs": 5, "prune_ratio": 0.5, "averaged_epochs": 2, "averaged_learning_rate": 0.03},
        "computed_in": "bfloat16",
        "n_train": 50_000,
        "n_test": 10_000,
        "test_accuracy": {"float32": 0.9},
        "history": history,
    }
    text = tables.training(record | ORIGIN)
    assert "| after epoch | 1 | 5 | 7 |" in text
    assert "| test accuracy % | 55.0 | 75.0 | 85.0 |" in text
    assert "float32: 90.00 ± 0.59" in text
    assert "5 scheduled epochs of 50,000 images in bfloat16" in text
    assert "Then 2 epochs at a rate of 0.03" in text
