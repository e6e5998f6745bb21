"""Judging files: a verdict a file, a reason for what cannot be judged, and only the bundle that is wanted."""

import json
from pathlib import Path

import pytest
from PIL import Image

from modeguard.templates_store.bundles import BundleError, read_bundle
from tests.offline.cli.conftest import Run

KEYS = ["file", "predicted", "score", "p_value", "is_adversarial", "reason", "alphas", "losses"]


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    Image.new("L", (8, 8), 128).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def test_no_bundle_is_one_line_and_status_1(run: Run) -> None:
    ran = run("detect", "a.png", "--bundle", "nowhere")
    assert (ran.status, ran.out) == (1, "")
    assert ran.said.startswith("error: nowhere is not a bundle")


def test_what_a_bundle_may_run_is_what_was_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[tuple[object, object]] = []

    def refuse(_: object, **options: object) -> None:
        allowed.append((options["allowed_factories"], options["trusted_programs"]))
        raise BundleError("refused")

    monkeypatch.setattr("modeguard.offline.cli.detect.read_bundle", refuse)
    assert run("detect", "a.png", "--bundle", "b").said == "error: refused"
    run("detect", "a.png", "--bundle", "b", "--trust-program", "c" * 64, "--trust-program", "d" * 64)
    run("detect", "a.png", "--bundle", "b", "--allow-factory", "mylab.nets:small")
    assert allowed == [((), ()), ((), ("c" * 64, "d" * 64)), (("mylab.nets:small",), ())]


def test_a_verdict_a_file_and_on_after_a_bad_one(run: Run, bundle: Path, digit: Path, tmp_path: Path) -> None:
    text, missing = tmp_path / "text.png", tmp_path / "missing.png"
    text.write_text("no image")
    ran = run("detect", text, missing, digit, "--bundle", bundle, "--json", "--curves")
    said = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.status == 1
    assert [list(line) for line in said] == [KEYS] * 3
    assert [line["file"] for line in said] == [str(text), str(missing), str(digit)]
    assert "PNG" in said[0]["reason"]
    assert said[1]["reason"] == "cannot be read: No such file or directory"
    assert all(line[key] is None for line in said[:2] for key in KEYS if key not in {"file", "reason"})
    verdict = said[2]
    assert verdict["predicted"] in read_bundle(bundle).manifest.class_names
    assert isinstance(verdict["is_adversarial"], bool)
    assert verdict["reason"] is None
    assert 0 <= verdict["score"] <= 1
    assert 0 < verdict["p_value"] <= 1
    assert len(verdict["losses"][0]) == len(verdict["alphas"]) == 5


def test_the_table_says_what_the_lines_say(
    run: Run, bundle: Path, digit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(digit.parent)
    (verdict,) = map(json.loads, run("detect", digit.name, "--bundle", bundle, "--json").out.splitlines())
    assert verdict["alphas"] is verdict["losses"] is None
    ran = run("detect", digit.name, "missing.png", "--bundle", bundle)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in ran.out.splitlines() if "│" in line]
    word = "adversarial" if verdict["is_adversarial"] else "natural"
    assert rows == [
        [digit.name, verdict["predicted"], f"{verdict['score']:.4f}", f"{verdict['p_value']:.4f}", word],
        ["missing.png", "-", "-", "-", "no verdict: cannot be read: No such file or directory"],
    ]


def test_only_the_bundle_of_a_digest_is_taken(run: Run, bundle: Path, digit: Path) -> None:
    digest = read_bundle(bundle).digest
    assert run("detect", digit, "--bundle", bundle, "--bundle-digest", digest).status == 0
    refused = run("detect", digit, "--bundle", bundle, "--bundle-digest", "0" * 64)
    assert refused.status == 1
    assert "is another bundle than expected" in refused.said


def test_a_type_that_the_detector_was_not_calibrated_in_is_warned_of(run: Run, bundle: Path, digit: Path) -> None:
    assert "calibrated in" not in run("detect", digit, "--bundle", bundle).err
    warned = run("detect", digit, "--bundle", bundle, "--dtype", "bfloat16").said
    assert "calibrated in float32, but the classifier computes in bfloat16 here" in warned
    assert "the false-positive rate is not guaranteed" in warned
