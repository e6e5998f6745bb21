"""Choosing the class templates that are stored: the known good images that paths lead to.

The method wants low-loss reference images of each class (the paper, section 4.2.1). Here these are the training images
of lowest loss, among those of the class that the classifier gets right. A bundle stores them as `ClassTemplates`.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from modeguard.detector import Classifier, ClassTemplates, ModeguardError, cross_entropy_and_margin, to_pixels

_IMAGES_AT_A_TIME = 256

MissingClasses = Literal["refuse", "abstain"]


class TemplateError(ModeguardError, ValueError):
    """Classes for which no template can be chosen."""


def choose_templates(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    n_templates: int,
    max_loss: float,
    missing: MissingClasses = "refuse",
    class_names: Sequence[str] = (),
    device: torch.device | str = "cpu",
    on_rows: Callable[[int], object] = lambda n_rows: None,
) -> ClassTemplates:
    """For each class, the `n_templates` images of lowest loss among those classified correctly.

    Args:
        classifier: pixels to logits, on `device`.
        images: (n, c, h, w) uint8 training images.
        labels: (n,) int64 in [0, n_classes).
        n_templates: templates for each class, at least 1.
        max_loss: the highest cross-entropy that a template may have, positive.
        missing: what to do with a class that has fewer than `n_templates` such images. "refuse" raises; "abstain"
            leaves the class out, so that the detector gives no verdict on images predicted as it.
        class_names: names for the error message; empty for numbers.
        device: where the classifier is.
        on_rows: called after each slice of the images, with their number.

    Returns:
        The templates of every class that has enough of them, on the CPU; lowest loss first in each class.

    Raises:
        TemplateError: names the classes without enough images of low loss, and the way out.

    Example:
        >>> templates = choose_templates(classifier, images, labels, n_templates=1, max_loss=0.1)
    """
    losses, margins = _losses_and_margins(classifier, images, labels, device, on_rows)
    is_good = (margins > 0) & (losses <= max_loss)
    chosen: dict[int, Tensor] = {}
    short: dict[int, int] = {}
    for label in range(classifier.n_classes):
        candidates = (is_good & (labels == label)).nonzero()[:, 0]
        if len(candidates) < n_templates:
            short[label] = len(candidates)
        else:
            # stable: of equal losses the earlier image, on every machine
            chosen[label] = candidates[losses[candidates].sort(stable=True).indices[:n_templates]]
    if not chosen or (short and missing == "refuse"):
        raise TemplateError(_shortage(short, n_templates, max_loss, class_names))
    picked = torch.stack(list(chosen.values()))
    return ClassTemplates(
        classes=torch.tensor(list(chosen)),
        images=to_pixels(images[picked]),
        losses=losses[picked],
        margins=margins[picked],
    )


def _losses_and_margins(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    device: torch.device | str,
    on_rows: Callable[[int], object],
) -> tuple[Tensor, Tensor]:
    losses, margins = [], []
    with torch.inference_mode():
        for rows, wanted in zip(images.split(_IMAGES_AT_A_TIME), labels.split(_IMAGES_AT_A_TIME), strict=True):
            found = cross_entropy_and_margin(classifier(to_pixels(rows.to(device))), wanted.to(device))
            losses.append(found[0].cpu())
            margins.append(found[1].cpu())
            on_rows(len(rows))
    return torch.cat(losses), torch.cat(margins)


def _shortage(short: dict[int, int], n_templates: int, max_loss: float, class_names: Sequence[str]) -> str:
    named = [f"{class_names[label] if class_names else label} ({found})" for label, found in short.items()]
    shown = ", ".join(named[:12]) + (f" and {len(named) - 12} more" if len(named) > 12 else "")
    return (
        f"every class needs {n_templates} correctly classified training images with a loss of at most {max_loss}; "
        f"these have fewer: {shown}. Raise max_loss, lower n_templates, look at more training images, or set "
        f'missing = "abstain" to leave such classes without verdict'
    )
