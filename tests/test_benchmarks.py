"""The tables of the documents are what the benchmark results say, and every result says where it comes from."""

import json

import pytest

from benchmarks import tables

RESULTS = sorted(tables.RESULTS.glob("*.json"))


def test_the_readme_shows_the_results() -> None:
    shown = (tables.ROOT / "README.md").read_text().split(tables.START)[1].split(tables.END)[0].strip()
    assert shown == tables.readme_part(tables.RESULTS)


def test_the_benchmark_page_shows_the_results() -> None:
    page = (tables.ROOT / "docs" / "benchmarks.md").read_text()
    assert page.startswith(tables.HEADER)
    for section in tables.sections(tables.RESULTS):
        assert section in page


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_names_command_commit_and_machine(path) -> None:
    record = json.loads(path.read_text())
    assert record["command"].startswith("python -m benchmarks.")
    assert len(record["commit"].partition("+")[0]) == 40
    assert record["machine"]["cpu"]
    assert record["machine"]["libraries"]["torch"]


def test_deals_are_told_by_mean_and_deviation_and_compared_in_pairs() -> None:
    def deal(chosen: float, other: float) -> dict[str, object]:
        return {"detectors": {"chosen": {"auroc": {"fgsm": chosen}}, "other": {"auroc": {"fgsm": other}}}}

    record = {
        "recipe": "toy",
        "deals": [deal(0.9, 0.8), deal(0.8, 0.6)],
        "command": "python -m benchmarks.fold_deals",
        "commit": 40 * "0",
        "machine": {"cpu": "c", "n_threads": 1, "n_cores": 2, "device": "cpu", "libraries": {"torch": "2"}},
    }
    text = tables.fold_deals(record)
    assert "### toy, 2 deals of the folds" in text
    assert "| chosen | 85.0 ± 7.1 |" in text
    assert "| other | 70.0 ± 14.1 |" in text
    assert "| chosen − other | +15.0 ± 7.1 |" in text
