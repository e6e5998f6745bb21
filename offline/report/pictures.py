"""The pictures of a report: figures as SVG that takes its colours from the page, images as PNG data.

A figure is drawn in fixed colours that are then replaced by variables of the page's style sheet, so that one figure
serves light and dark mode. Equal data give equal bytes: no dates, no random ids.
"""

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_curve
from torch import Tensor

from modeguard.detector import to_bytes
from modeguard.offline.evaluation import PairedScores

__all__ = [
    "Curve",
    "Spread",
    "curves_picture",
    "difference_uri",
    "png_of",
    "png_uri",
    "roc_picture",
    "scores_picture",
    "spread_picture",
]

Array = NDArray[np.float64]

NATURAL, ADVERSARIAL, _INK = "#0072b2", "#d55e00", "#010203"
SERIES = ("#0072b3", "#d55e01", "#009e73", "#cc79a7", "#b07d00", "#56b4e9", "#7f7f7f")
"""Okabe and Ito's colours, told apart by the colour-blind; the yellow darkened for white paper."""

_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_PAGE_COLOURS = {NATURAL: "var(--natural)", ADVERSARIAL: "var(--adversarial)", _INK: "currentColor"} | {
    colour: f"var(--series-{index})" for index, colour in enumerate(SERIES)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "lines.linewidth": 1.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "grid.alpha": 0.2,
    "axes.grid": True,
} | dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), _INK)
_N_BINS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The loss of one image on its way to its templates.

    Attributes:
        title: what image it is.
        colour: `NATURAL` or `ADVERSARIAL`.
        alphas: (n_points,) in [0, 1].
        losses: (n_templates, n_points).
        is_seen: (n_points,) bool, the points that the detector looks at.
    """

    title: str
    colour: str
    alphas: Array
    losses: Array
    is_seen: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """Curves of many images.

    Attributes:
        alphas: (n_points,) in [0, 1].
        natural: (n_natural, n_points).
        adversarial: (n_adversarial, n_points).
    """

    alphas: Array
    natural: Array
    adversarial: Array


def curves_picture(curves: Sequence[Curve], alt: str) -> Markup:
    """Loss curves side by side on one scale, with dots where the detector looks."""
    with _figure(3.4 * len(curves) / 2, 2.1) as figure:
        panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for axes, curve in zip(panels, curves, strict=True):
            for losses in curve.losses:
                axes.plot(curve.alphas, losses, color=curve.colour)
                axes.plot(curve.alphas[curve.is_seen], losses[curve.is_seen], "o", color=curve.colour, markersize=4)
            axes.set_title(curve.title)
            _path_axis(axes)
        panels[0].set_ylabel("loss")
        panels[0].set_ylim(bottom=min(0.0, *panels[0].get_ylim()))
    return _svg(figure, alt)


def spread_picture(spread: Spread, title: str, quantity: str, alt: str) -> Markup:
    """Mean curves of natural and of adversarial images, each with the band that holds the middle half of them."""
    with _figure(3.2, 2.3) as figure:
        axes = figure.subplots()
        for name, colour, dash, curves in (
            ("natural", NATURAL, "-", spread.natural),
            ("adversarial", ADVERSARIAL, "--", spread.adversarial),
        ):
            low, high = np.percentile(curves, [25, 75], axis=0)
            axes.fill_between(spread.alphas, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(spread.alphas, curves.mean(axis=0), color=colour, linestyle=dash, label=name)
        axes.set_title(title)
        axes.set_ylabel(quantity)
        _path_axis(axes)
        axes.legend()
    return _svg(figure, alt)


def roc_picture(scores: Mapping[str, PairedScores], *, target_fpr: float, max_fpr: float, alt: str) -> Markup:
    """ROC curves of the attacks up to a false positive rate, with a line at the target.

    Args:
        scores: by attack.
        target_fpr: rate of natural images that may be flagged.
        max_fpr: right end of the picture, in (0, 1].
        alt: the picture in words.
    """
    with _figure(3.4, 3.2) as figure:
        axes = figure.subplots()
        for index, (name, pairs) in enumerate(scores.items()):
            values, labels = pairs.labelled()
            fpr, tpr, _ = roc_curve(labels, values)
            colour, dash = SERIES[index % len(SERIES)], _DASHES[index % len(_DASHES)]
            axes.plot(fpr, tpr, color=colour, linestyle=dash, label=name)
        axes.axvline(target_fpr, color=_INK, linewidth=0.8, linestyle=":")
        axes.set_xlim(-0.01 * max_fpr, max_fpr)
        axes.set_ylim(-0.01, 1.01)
        axes.set_xlabel("natural images flagged (FPR)")
        axes.set_ylabel("adversarial images flagged (TPR)")
        axes.legend(loc="lower right")
    return _svg(figure, alt)


def scores_picture(pairs: PairedScores, threshold: float, title: str, alt: str) -> Markup:
    """Histograms of the scores of natural and adversarial images, with the threshold; right of it is flagged."""
    bins = np.histogram_bin_edges([*pairs.natural, *pairs.adversarial, threshold], _N_BINS)
    margin = 0.02 * (bins[-1] - bins[0])
    with _figure(3.2, 2.1) as figure:
        axes = figure.subplots()
        for name, colour, scores in (
            ("natural", NATURAL, pairs.natural),
            ("adversarial", ADVERSARIAL, pairs.adversarial),
        ):
            share, _ = np.histogram(scores, bins)
            axes.stairs(100 * share / len(scores), bins, fill=True, color=colour, alpha=0.3)
            dash = "-" if name == "natural" else "--"
            axes.stairs(100 * share / len(scores), bins, color=colour, linestyle=dash, linewidth=1.4, label=name)
        axes.axvline(threshold, color=_INK, linewidth=1, linestyle=":", label="threshold")
        axes.set_xlim(bins[0] - margin, bins[-1] + margin)
        axes.set_title(title)
        axes.set_xlabel("score")
        axes.set_ylabel("% of images")
        axes.set_ylim(0, 1.5 * axes.get_ylim()[1])  # room for the legend
        axes.legend(loc="upper center")
    return _svg(figure, alt)


def png_of(image: Tensor) -> bytes:
    """An image file of the bytes of one image.

    Args:
        image: (c, h, w) uint8; 1 channel is written as grey, 3 as RGB, of other numbers the first.
    """
    channels = image.permute(1, 2, 0).contiguous().cpu().numpy()
    picture = Image.fromarray(channels if channels.shape[2] == 3 else channels[:, :, 0])
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def png_uri(pixels: Tensor) -> str:
    """One image (c, h, w), pixels in [0, 1], as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(png_of(to_bytes(pixels))).decode()}"


def difference_uri(natural: Tensor, adversarial: Tensor) -> tuple[str, float]:
    """What an attack changed, around mid-grey and amplified until it fills the range; and by how much amplified.

    Args:
        natural: (c, h, w) pixels in [0, 1].
        adversarial: (c, h, w) pixels in [0, 1].
    """
    difference = adversarial - natural
    largest = float(difference.abs().max())
    gain = 0.5 / largest if largest > 0 else 1.0
    return png_uri(0.5 + gain * difference), gain


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of some inches, and the style for as long as it is drawn on."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def _path_axis(axes: Axes) -> None:
    axes.set_xlabel("image → template")
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])


def _svg(figure: Figure, alt: str) -> Markup:
    """The figure as an element of a page, in the page's colours."""
    stream = io.StringIO()
    with mpl.rc_context(_STYLE | {"svg.hashsalt": alt}):  # one salt a figure, so that ids are unique in the page
        figure.savefig(
            stream, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace("'DejaVu Sans'", "system-ui, sans-serif")
    for colour, variable in _PAGE_COLOURS.items():
        text = text.replace(colour, variable)
    text = re.sub(r' (width|height)="[^"]*pt"', "", text)
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1).strip())  # noqa: S704
