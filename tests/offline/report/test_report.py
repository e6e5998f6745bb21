"""The report: one file that asks for nothing, says what was measured, and trusts no name."""

import base64
import errno
import io
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modeguard.detector import NO_TEMPLATE, Verdict, detect, judge, to_bytes
from modeguard.offline.console import Console
from modeguard.offline.evaluation import Evaluation, evaluation_table, paired_scores
from modeguard.offline.pipeline import Build
from modeguard.offline.report import Case, ReportError, cases_of, png_of
from modeguard.offline.report.cases import pooled_pairs, spread_of
from modeguard.offline.report.pictures import difference_uri, png_uri
from tests.offline.toy_build import toy_recipe

Attributes = dict[str, str]
Pairs = list[tuple[str, str | None]]

EVIL = "<script>alert('&')</script>"
CLASS_NAMES = tuple(f"{EVIL} {number} ∑" for number in range(10))


class Page(HTMLParser):
    """What a browser would see: text, pictures, and everything that names something else."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Attributes]] = []
        self.text = ""
        self.images: list[Attributes] = []
        self.figures: list[Attributes] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Pairs) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attributes)
        if tag == "svg":
            self.figures.append(attributes)
        if "id" in attributes:
            self.ids.append(attributes["id"])

    def handle_startendtag(self, tag: str, attrs: Pairs) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


def make_build(artifacts: Path) -> Build:
    build = Build(toy_recipe(), artifacts, Console(io.StringIO(), io.StringIO()))
    build.dataset = replace(build.dataset, class_names=CLASS_NAMES)
    return build


@pytest.fixture(scope="module")
def build(artifacts: Path) -> Build:
    return make_build(artifacts)


@pytest.fixture(scope="module")
def evaluation(build: Build) -> Evaluation:
    return build.evaluation


@pytest.fixture(scope="module")
def html(build: Build, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    build.write_report(path, digest="d1f" * 20)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_it_asks_for_nothing_outside_itself(html: str, page: Page) -> None:
    assert not re.search(r"https?:|//[a-z]|@import", html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "a"}
    for _, attributes in page.tags:
        assert "src" not in attributes or attributes["src"].startswith("data:image/png;base64,")
        assert attributes.get("xlink:href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert set(re.findall(r"url\((.)", html)) == {"#"}


def test_every_reference_within_a_figure_has_one_target(html: str, page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    referred = set(re.findall(r"url\(#([^)]*)\)", html)) | set(re.findall(r'xlink:href="#([^"]*)"', html))
    assert referred <= set(page.ids)
    assert referred
    assert page.open == []


def test_names_of_classes_are_text_and_nothing_else(html: str, page: Page) -> None:
    assert EVIL not in html
    assert EVIL in page.text
    assert any(EVIL in image["alt"] for image in page.images)


def test_it_says_what_was_measured(page: Page, evaluation: Evaluation) -> None:
    words = " ".join(page.text.split())
    assert f"in {100 * evaluation.mean_auroc:.1f} % of cases" in words
    assert f"weakest against {evaluation.worst_attack}" in words
    assert "d1f" * 20 in words
    for result in evaluation.attacks:
        for figure in (result.auroc, result.aupr, result.tpr_at_1_fpr, result.fpr_at_95_tpr, result.balanced_accuracy):
            assert f"{100 * figure.value:.1f}{100 * figure.low:.1f}–{100 * figure.high:.1f}" in words
        assert f"{result.attack}: " in words


def test_it_shows_images_curves_rocs_and_histograms_of_every_attack(page: Page, build: Build) -> None:
    labels = [figure["aria-label"] for figure in page.figures]
    assert all(figure["role"] == "img" for figure in page.figures)
    assert len(set(labels)) == len(labels)
    for name in build.recipe.attacks:
        assert [label for label in labels if label.startswith("Loss curves") and name in label]
        assert [label for label in labels if label.startswith("Mean loss curves") and name in label]
        assert [label for label in labels if label.startswith("Histogram") and name in label]
        assert [label for label in labels if label.startswith("ROC") and name in label]
    assert len(page.images) == 5 * len(build.recipe.attacks)
    for image in page.images:
        assert image["alt"]
        with Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))) as picture:
            assert picture.size == (8, 8)


def test_one_build_gives_one_report(build: Build, artifacts: Path, tmp_path: Path) -> None:
    build.write_report(tmp_path / "one.html")
    make_build(artifacts).write_report(tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_full_disk_leaves_the_old_report(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReportError, match=re.escape(str(path)) + ".*No space left on device"):
        build.write_report(path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("report.html", "old")]


def test_a_place_that_cannot_be_is_named(build: Build, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match=r"report .*file/report\.html was not written: "):
        build.write_report(tmp_path / "file" / "report.html")


def cases(build: Build) -> list[Case]:
    return cases_of(build.fitted.detector, build.classifier, build.examples(), build.device)


def test_an_abstention_is_shown_as_one(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases(build)[0]
    nothing = replace(
        case.adversarial,
        verdict=Verdict(case.adversarial.verdict.predicted, None, None, None, NO_TEMPLATE),
        template=None,
        losses=np.full_like(case.adversarial.losses, np.nan),
    )
    monkeypatch.setattr("modeguard.offline.pipeline.build.cases_of", lambda *_: [replace(case, adversarial=nothing)])
    build.write_report(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "no verdict" in text
    assert "score nan" not in text
    assert len(Page(text).images) == 4


def test_examples_are_test_images_as_the_detector_judges_them(build: Build) -> None:
    found_cases = cases(build)
    assert [case.example.attack for case in found_cases] == list(build.recipe.attacks)
    for case in found_cases:
        assert case.natural.verdict.predicted == case.example.label != case.adversarial.verdict.predicted
        difference = float((case.adversarial.pixels - case.natural.pixels).abs().max())
        assert difference == pytest.approx(case.example.distance, abs=1e-6)
        for judged in (case.natural, case.adversarial):
            found = detect(build.fitted.detector, build.classifier, judged.pixels[None])
            (verdict,) = found.verdicts()
            assert judged.verdict.score == pytest.approx(verdict.score)
            assert judged.verdict.is_flagged is verdict.is_flagged
            assert found.curves is not None
            np.testing.assert_allclose(judged.losses[:, judged.is_seen], found.curves.losses[0], atol=1e-5)


def test_pooled_pairs_hold_every_image_once(build: Build) -> None:
    detector = build.fitted.detector
    pooled = paired_scores(detector, pooled_pairs(build.held_out))
    by_attack = [paired_scores(detector, attack.pairs) for attack in build.held_out.attacks.values()]
    assert len(pooled.adversarial) == sum(len(pairs.adversarial) for pairs in by_attack)
    assert len(pooled.natural) == int(build.folds.is_test.sum())
    assert all(np.isin(pairs.natural, pooled.natural).all() for pairs in by_attack)


def test_spread_is_the_mean_over_templates(build: Build) -> None:
    pairs = pooled_pairs(build.held_out)
    spread = spread_of(build.fitted.detector, pairs, "losses")
    found = judge(build.fitted.detector, pairs.observation)
    assert spread is not None
    assert found.curves is not None
    row = int((~pairs.is_adversarial).nonzero()[3, 0])
    np.testing.assert_allclose(spread.natural[3], found.curves.losses[row].mean(dim=0), rtol=1e-6)
    assert len(spread.adversarial) == int(pairs.is_adversarial.sum())


def test_a_difference_fills_the_range_around_grey() -> None:
    natural = torch.full((3, 4, 4), 0.5)
    adversarial = natural.clone()
    adversarial[0, 0, 0] += 0.05
    adversarial[1, 1, 1] -= 0.025
    uri, gain = difference_uri(natural, adversarial)
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as picture:
        assert (picture.mode, picture.getpixel((0, 0)), picture.getpixel((1, 1))) == (
            "RGB",
            (255, 128, 128),
            (128, 64, 128),
        )
    assert gain == pytest.approx(10)
    assert difference_uri(natural, natural) == (png_uri(natural), 1.0)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_png_keeps_every_byte(channels: int, mode: str) -> None:
    image = to_bytes(torch.rand((channels, 5, 7), generator=torch.Generator().manual_seed(0)))
    with Image.open(io.BytesIO(png_of(image))) as picture:
        assert picture.mode == mode
        read = np.asarray(picture).reshape(5, 7, channels)
    np.testing.assert_array_equal(read, image.permute(1, 2, 0))


def test_evaluation_table_has_a_row_an_attack(evaluation: Evaluation) -> None:
    results = io.StringIO()
    evaluation_table(Console(results, io.StringIO()), evaluation)
    lines = results.getvalue().splitlines()
    for result in evaluation.attacks:
        (row,) = [line for line in lines if f" {result.attack} " in line and "│" in line]
        auroc = result.auroc
        assert f"{100 * auroc.value:.1f} [{100 * auroc.low:.1f}, {100 * auroc.high:.1f}]" in row
    assert f"worst attack {evaluation.worst_attack} " in lines[-1]
