"""Finding out at load time that a classifier is not what the method needs, and saying so.

Each check looks at what the classifier answers, so that it also works for one whose code cannot be seen.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modeguard.detector import Classifier, Sliced
from modeguard.templates_store.classifiers.errors import ClassifierError

__all__ = ["check_classifier", "check_pixel_scale"]

_N_PROBES = 4
# how far two answers to one image may lie apart, relative to the largest logit: kernels for other batch sizes sum
# in another order; batch norm or dropout in training mode move logits by far more
_TOLERANCE = {torch.bfloat16: 0.05, torch.float16: 0.02}
_DEFAULT_TOLERANCE = 0.01
_SOFTMAX_TOLERANCE = 0.01
_CLEARLY_BETTER = 0.05


def check_classifier(classifier: Classifier, pixels: Tensor) -> None:
    """Refuse a classifier that is in training mode, or whose answers are no logits of single images.

    Args:
        classifier: any classifier.
        pixels: (n, c, h, w), at least 2 different natural images in [0, 1]; the first few are used.

    Raises:
        ClassifierError: naming the fault and what to do about it.
    """
    if len(pixels) < 2:
        raise ClassifierError(f"at least 2 images are needed to check a classifier, got {len(pixels)}")
    pixels = pixels[:_N_PROBES]
    _check_mode(classifier)
    with torch.no_grad():
        together = _answers(classifier, pixels)
        _check_answers(classifier, together)
        again = _answers(classifier, pixels)
        alone = torch.cat([_answers(classifier, pixels[i : i + 1]) for i in range(len(pixels))])
    allowed = _allowed_difference(classifier, together)
    if not _agree(together, again, allowed):
        raise ClassifierError(
            "two calls with the same images gave different logits, expected equal ones; put the model in "
            "evaluation mode (model.eval()) before it is saved or exported, and switch off any randomness in it"
        )
    if not _agree(together, alone, allowed):
        raise ClassifierError(
            "the logits of an image depend on the other images of the batch, expected each by itself; batch "
            "norm is in training mode: call model.eval() before the model is saved or exported"
        )
    _check_logits(together)


def _check_mode(classifier: Classifier) -> None:
    if not isinstance(classifier, nn.Module):
        return
    training = [name or "the model itself" for name, module in classifier.named_modules() if module.training]
    if training:
        raise ClassifierError(
            f"the classifier is in training mode ({', '.join(training[:3])}), expected evaluation mode; "
            "call classifier.eval()"
        )


def _answers(classifier: Classifier, pixels: Tensor) -> Tensor:
    try:
        answers = classifier(pixels)
    except Exception as error:  # whatever a foreign model raises
        raise ClassifierError(
            f"the classifier failed on {len(pixels)} images of shape {tuple(pixels.shape[1:])}: {error}; it must "
            "take any number of images (torch.export: dynamic_shapes=({0: torch.export.Dim('n')},))"
        ) from error
    if not isinstance(answers, Tensor):
        raise ClassifierError(f"the classifier returned {type(answers).__name__}, expected one tensor of logits")
    if answers.ndim != 2 or len(answers) != len(pixels):
        raise ClassifierError(
            f"the classifier returned shape {tuple(answers.shape)} for {len(pixels)} images, expected "
            f"({len(pixels)}, {classifier.n_classes}): one row of logits an image, for any number of images"
        )
    return answers


def _check_answers(classifier: Classifier, answers: Tensor) -> None:
    if answers.shape[1] != classifier.n_classes:
        raise ClassifierError(
            f"the classifier returned {answers.shape[1]} numbers an image, expected n_classes = "
            f"{classifier.n_classes}; correct n_classes or the model"
        )
    if not answers.is_floating_point():
        raise ClassifierError(f"the classifier returned {answers.dtype}, expected floating-point logits")
    if not bool(torch.isfinite(answers).all()):
        raise ClassifierError(
            "the classifier returned NaN or infinite logits for natural images, expected finite ones; check its "
            "weights, the normalisation (mean, std), and dtype (try float32)"
        )


def _check_logits(answers: Tensor) -> None:
    sums = answers.double().sum(dim=1)
    is_probability = bool((answers >= 0).all()) and bool(((sums - 1).abs() < _SOFTMAX_TOLERANCE).all())
    if is_probability:
        raise ClassifierError(
            "the classifier returned probabilities (no row has a negative number and each sums to 1), expected "
            "logits; remove the softmax at the end of the model, or return its logarithm"
        )


def _allowed_difference(classifier: Classifier, answers: Tensor) -> float:
    dtype = getattr(classifier, "compute_dtype", answers.dtype)
    return _TOLERANCE.get(dtype, _DEFAULT_TOLERANCE) * float(answers.abs().max())


def _agree(first: Tensor, second: Tensor, allowed: float) -> bool:
    return float((first - second).abs().max()) <= allowed


@dataclass(frozen=True, slots=True)
class _Input:
    """A habit of feeding networks: what the network sees of pixels in [0, 1], and how a spec says so."""

    described: str
    remedy: str
    seen: Callable[[Tensor], Tensor]


def _imagenet(pixels: Tensor) -> Tensor:
    mean = pixels.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = pixels.new_tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (pixels - mean) / std


_ANY_CHANNELS = (
    _Input("pixels in [0, 1] as they are", "set mean to 0 and std to 1", lambda pixels: pixels),
    _Input("pixels in 0..255", "set mean to 0 and std to 1/255 = 0.00392157", lambda pixels: pixels * 255),
    _Input("pixels in [-1, 1]", "set mean and std to 0.5", lambda pixels: pixels * 2 - 1),
)
_COLOUR = (_Input("ImageNet's normalisation", "set mean to .485 .456 .406 and std to .229 .224 .225", _imagenet),)


def check_pixel_scale(classifier: Classifier, pixels: Tensor, labels: Tensor) -> None:
    """Refuse a classifier that answers clearly better when its network is fed in another way than declared.

    Tried are: no normalisation (also the remedy where the model normalises by itself), 0..255, [-1, 1],
    ImageNet's mean and std, and each of them and the declared way with the channels in the order BGR.

    Args:
        classifier: any classifier; where it has a `spec`, its mean and std are the declared normalisation.
        pixels: (n, c, h, w), natural images in [0, 1]; some hundreds make the verdict reliable.
        labels: (n,) int64, their true classes.

    Raises:
        ClassifierError: naming the better way, the two accuracies and the remedy. Better must be by 5 points
            and four standard errors of the difference of two proportions.
    """
    if len(pixels) != len(labels) or len(pixels) == 0:
        raise ClassifierError(f"one label an image is needed, got {len(pixels)} images, {len(labels)} labels")
    declared = _accuracy(classifier, pixels, labels)
    mean, std = _declared_normalisation(classifier, pixels)
    tried = [
        (way, _accuracy(classifier, way.seen(pixels) * std + mean, labels))
        for way in _alternatives(pixels.shape[1], mean, std)
    ]
    best, accuracy = max(tried, key=lambda pair: pair[1])
    error = ((accuracy * (1 - accuracy) + declared * (1 - declared)) / len(labels)) ** 0.5
    if accuracy - declared > _CLEARLY_BETTER + 4 * error:
        raise ClassifierError(
            f"the classifier is right on {declared:.1%} of {len(labels)} images with the declared mean and std, "
            f"but on {accuracy:.1%} when its network gets {best.described}: {best.remedy}"
        )


def _accuracy(classifier: Classifier, pixels: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        predicted = Sliced(classifier)(pixels).argmax(dim=1)
    return float((predicted == labels).double().mean())


def _declared_normalisation(classifier: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor]:
    spec = getattr(classifier, "spec", None)
    mean, std = (0.0,) * pixels.shape[1], (1.0,) * pixels.shape[1]
    if spec is not None:
        mean, std = spec.mean, spec.std
    return pixels.new_tensor(mean).view(-1, 1, 1), pixels.new_tensor(std).view(-1, 1, 1)


def _alternatives(channels: int, mean: Tensor, std: Tensor) -> list[_Input]:
    if channels != 3:
        return list(_ANY_CHANNELS)
    ways = [*_ANY_CHANNELS, *_COLOUR]
    declared = _Input("the declared normalisation", "", lambda pixels: (pixels - mean) / std)
    return ways + [_blue_first(way) for way in (declared, *ways)]


def _blue_first(way: _Input) -> _Input:
    remedy = f"{way.remedy}, and " if way.remedy else ""
    return _Input(
        f"{way.described} with the channels in the order BGR",
        f"{remedy}wrap the model so that it takes RGB (model(images.flip(1)))",
        lambda pixels: way.seen(pixels).flip(1),
    )
