"""The report: one file that asks for nothing, says what was measured, and trusts no name."""

import base64
import errno
import io
import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from modeguard.detector import conformal_p_values, detect, to_bytes
from modeguard.offline.console import Console
from modeguard.offline.evaluation.results import evaluate, flagged_share, paired_scores
from modeguard.offline.evaluation.table import evaluation_table
from modeguard.offline.pipeline.build import Build
from modeguard.offline.report import page as report_module
from modeguard.offline.report.cases import cases_of, pooled_pairs, scores_of, spread_of, threshold_of
from modeguard.offline.report.page import ReportError, write_report
from modeguard.offline.report.pictures import difference_uri, png_of, png_uri
from tests.offline.toy_build import toy_recipe

EVIL = "<script>alert('&')</script>"
CLASS_NAMES = tuple(f"{EVIL} {number} ∑" for number in range(10))


class Page(HTMLParser):
    """What a browser would see: text, pictures, and everything that names something else."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.images, self.figures, self.ids, self.open = [], "", [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attributes)
        if tag == "svg":
            self.figures.append(attributes)
        if "id" in attributes:
            self.ids.append(attributes["id"])

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


def make_build(artifacts):
    build = Build(toy_recipe(), artifacts, Console(io.StringIO(), io.StringIO()))
    build.dataset = replace(build.dataset, class_names=CLASS_NAMES)
    return build


@pytest.fixture(scope="module")
def build(artifacts):
    return make_build(artifacts)


@pytest.fixture(scope="module")
def evaluation(build):
    return evaluate(build)


@pytest.fixture(scope="module")
def html(build, evaluation, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    write_report(build, evaluation, path, digest="d1f" * 20)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_it_asks_for_nothing_outside_itself(html, page):
    assert not re.search(r"https?:|//[a-z]|@import", html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "a"}
    for _, attributes in page.tags:
        assert "src" not in attributes or attributes["src"].startswith("data:image/png;base64,")
        assert attributes.get("xlink:href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert set(re.findall(r"url\((.)", html)) == {"#"}


def test_every_reference_within_a_figure_has_one_target(html, page):
    assert len(page.ids) == len(set(page.ids))
    referred = set(re.findall(r"url\(#([^)]*)\)", html)) | set(re.findall(r'xlink:href="#([^"]*)"', html))
    assert referred <= set(page.ids)
    assert referred
    assert page.open == []


def test_names_of_classes_are_text_and_nothing_else(html, page):
    assert EVIL not in html
    assert EVIL in page.text
    assert any(EVIL in image["alt"] for image in page.images)


def test_it_says_what_was_measured(page, evaluation):
    words = " ".join(page.text.split())
    assert f"in {100 * evaluation.mean_auroc:.1f} % of cases" in words
    assert f"weakest against {evaluation.worst_attack}" in words
    assert "d1f" * 20 in words
    for result in evaluation.attacks:
        for figure in (result.auroc, result.aupr, result.tpr_at_1_fpr, result.fpr_at_95_tpr, result.balanced_accuracy):
            assert f"{100 * figure.value:.1f}{100 * figure.low:.1f}–{100 * figure.high:.1f}" in words
        assert f"{result.attack}: " in words


def test_it_shows_images_curves_rocs_and_histograms_of_every_attack(page, build):
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


def test_one_build_gives_one_report(build, evaluation, artifacts, tmp_path):
    write_report(build, evaluation, tmp_path / "one.html")
    again = make_build(artifacts)
    write_report(again, evaluate(again), tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_full_disk_leaves_the_old_report(build, evaluation, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReportError, match=re.escape(str(path)) + ".*No space left on device"):
        write_report(build, evaluation, path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("report.html", "old")]


def test_a_place_that_cannot_be_is_named(build, evaluation, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match=r"report .*file/report\.html was not written: "):
        write_report(build, evaluation, tmp_path / "file" / "report.html")


def test_an_abstention_is_shown_as_one(build, evaluation, tmp_path, monkeypatch):
    case = cases_of(build)[0]
    nothing = replace(
        case.adversarial,
        score=math.nan,
        p_value=math.nan,
        is_adversarial=None,
        template=None,
        losses=np.full_like(case.adversarial.losses, np.nan),
    )
    monkeypatch.setattr(report_module, "cases_of", lambda _: [replace(case, adversarial=nothing)])
    write_report(build, evaluation, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "no verdict" in text
    assert "score nan" not in text
    assert len(Page(text).images) == 4


def test_examples_are_test_images_as_the_detector_judges_them(build):
    cases = cases_of(build)
    assert [case.attack for case in cases] == list(build.recipe.attacks)
    for case in cases:
        assert case.natural.predicted == case.label != case.adversarial.predicted
        assert (case.adversarial.pixels - case.natural.pixels).abs().max() == pytest.approx(case.distance, abs=1e-6)
        for judged in (case.natural, case.adversarial):
            found = detect(build.fitted.detector, build.classifier, judged.pixels[None])
            assert judged.score == pytest.approx(float(found.score[0]))
            assert judged.p_value == pytest.approx(float(found.p_value[0]))
            assert judged.is_adversarial is bool(found.is_adversarial[0])
            np.testing.assert_allclose(judged.losses[:, judged.is_seen], found.curves.losses[0], atol=1e-5)


def test_pooled_pairs_hold_every_image_once(build):
    pooled = paired_scores(build.fitted.detector, pooled_pairs(build))
    by_attack = scores_of(build)
    assert len(pooled.adversarial) == sum(len(pairs.adversarial) for pairs in by_attack.values())
    assert len(pooled.natural) == int(build.folds.is_test.sum())
    assert all(np.isin(pairs.natural, pooled.natural).all() for pairs in by_attack.values())


def test_spread_is_the_mean_over_templates(build):
    pairs = pooled_pairs(build)
    config = build.fitted.detector.config
    spread = spread_of(build.fitted.detector, pairs, "losses")
    curves = pairs.observation.curves.select(config.alphas, config.n_templates)
    row = int((~pairs.is_adversarial).nonzero()[3, 0])
    np.testing.assert_allclose(spread.natural[3], curves.losses[row].mean(dim=0), rtol=1e-6)
    assert len(spread.adversarial) == int(pairs.is_adversarial.sum())


@pytest.mark.parametrize("n_levels", [3, 12, 10**6])
@pytest.mark.parametrize("n_calibration", [40, 99, 100, 251])
@pytest.mark.parametrize("target_fpr", [0.03, 0.05, 0.1, 0.5])
def test_threshold_is_where_the_p_value_reaches_the_target(build, n_calibration, target_fpr, n_levels):
    generator = torch.Generator().manual_seed(n_calibration)
    scores = torch.randint(n_levels, (n_calibration,), generator=generator).double().sort().values / n_levels
    config = replace(build.fitted.detector.config, target_fpr=target_fpr)
    detector = replace(build.fitted.detector, config=config, calibration_scores=scores)
    threshold = threshold_of(detector)
    asked = torch.cat([scores, torch.tensor([threshold, -1.0, 2.0])])
    is_flagged = conformal_p_values(asked, scores) <= target_fpr
    assert torch.equal(asked > threshold, is_flagged)
    assert flagged_share(detector, asked.numpy()) == pytest.approx(float(is_flagged.double().mean()))


def test_a_difference_fills_the_range_around_grey():
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
def test_png_keeps_every_byte(channels, mode):
    image = to_bytes(torch.rand((channels, 5, 7), generator=torch.Generator().manual_seed(0)))
    with Image.open(io.BytesIO(png_of(image))) as picture:
        assert picture.mode == mode
        read = np.asarray(picture).reshape(5, 7, channels)
    np.testing.assert_array_equal(read, image.permute(1, 2, 0))


def test_evaluation_table_has_a_row_an_attack(evaluation):
    results = io.StringIO()
    evaluation_table(Console(results, io.StringIO()), evaluation)
    lines = results.getvalue().splitlines()
    for result in evaluation.attacks:
        (row,) = [line for line in lines if f" {result.attack} " in line and "│" in line]
        auroc = result.auroc
        assert f"{100 * auroc.value:.1f} [{100 * auroc.low:.1f}, {100 * auroc.high:.1f}]" in row
    assert f"worst attack {evaluation.worst_attack} " in lines[-1]
