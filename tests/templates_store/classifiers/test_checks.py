"""Each fault that a classifier can have is found, in a model with exactly that fault, and a sound model passes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modeguard.templates_store.classifiers import (
    ClassifierError,
    ClassifierSpec,
    NetworkClassifier,
    build_classifier,
    check_classifier,
    check_pixel_scale,
)

Change = Callable[[Tensor], Tensor]

SHAPE = (3, 4, 4)
SPEC = ClassifierSpec("none", 3, SHAPE, (0.0,) * 3, (1.0,) * 3)


def random_pixels(n: int = 8, seed: int = 0) -> Tensor:
    return torch.rand((n, *SHAPE), generator=torch.Generator().manual_seed(seed))


class Answering(nn.Module):
    """A linear network whose answer is changed by a function."""

    def __init__(self, change: Change = lambda logits: logits, n_out: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(48, n_out)
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.linear(images.flatten(1)))


def classifier_of(network: nn.Module, spec: ClassifierSpec = SPEC) -> NetworkClassifier:
    return NetworkClassifier(network, spec).eval()


class AlwaysTraining(nn.Module):
    """A layer that `eval()` does not reach, as in a program exported in training mode."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layers = (layer,)  # not registered

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.layers[0](images)
        return answer


class OneBatchSize(Answering):
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.view(4, 48))
        return logits


class Failing(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        if len(images) != 4:
            raise RuntimeError("expected 4 images")
        return images.flatten(1)[:, :3]


FAULTS: dict[str, tuple[nn.Module, str]] = {
    "softmax": (Answering(lambda logits: logits.softmax(1)), "probabilities"),
    "too many classes": (Answering(n_out=5), "returned 5 numbers an image, expected n_classes = 3"),
    "not a number": (Answering(lambda logits: logits * float("nan")), "NaN or infinite"),
    "infinite": (Answering(lambda logits: logits / 0), "NaN or infinite"),
    "labels": (Answering(lambda logits: logits.argmax(1)), r"returned shape \(4,\)"),
    "feature map": (Answering(lambda logits: logits[:, :, None, None]), r"returned shape \(4, 3, 1, 1\)"),
    "one row for all": (Answering(lambda logits: logits.mean(0, keepdim=True)), r"shape \(1, 3\) for 4 images"),
    "dropout": (nn.Sequential(AlwaysTraining(nn.Dropout(0.5)), Answering()), "two calls with the same images"),
    "batch norm": (nn.Sequential(AlwaysTraining(nn.BatchNorm2d(3)), Answering()), "depend on the other images"),
    "fixed batch": (OneBatchSize(), "failed on 1 images .* any number of images"),
    "fails on other batches": (Failing(), "failed on 1 images .*expected 4 images"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault: str) -> None:
    network, message = FAULTS[fault]
    with pytest.raises(ClassifierError, match=message):
        check_classifier(classifier_of(network), random_pixels())


def test_whole_numbers_are_no_logits() -> None:
    class Counting:
        n_classes, input_shape = 3, SHAPE

        def __call__(self, images: Tensor) -> Tensor:
            return torch.zeros((len(images), 3), dtype=torch.int64)

    with pytest.raises(ClassifierError, match=r"torch\.int64, expected floating-point logits"):
        check_classifier(Counting(), random_pixels())


def test_an_answer_that_is_no_tensor_is_refused() -> None:
    class Verbose:
        n_classes, input_shape = 3, SHAPE

        def __call__(self, images: Tensor) -> Any:
            return {"logits": images.flatten(1)[:, :3]}

    with pytest.raises(ClassifierError, match="returned dict, expected one tensor"):
        check_classifier(Verbose(), random_pixels())


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm2d(3)])
def test_training_mode_is_found(layer: nn.Module) -> None:
    classifier = classifier_of(nn.Sequential(layer, Answering()))
    check_classifier(classifier, random_pixels())
    layer.train()
    with pytest.raises(ClassifierError, match=r"in training mode \(network\.0\).*classifier\.eval\(\)"):
        check_classifier(classifier, random_pixels())


def test_one_image_is_not_enough_to_check_with() -> None:
    with pytest.raises(ClassifierError, match="at least 2 images"):
        check_classifier(classifier_of(Answering()), random_pixels(1))


@pytest.mark.parametrize(
    "network",
    [
        Answering(),
        Answering(lambda logits: logits.log_softmax(1)),  # the same cross-entropy as the logits
        Answering(lambda logits: logits.sigmoid()),  # odd, but rows do not sum to 1
        Answering(lambda logits: 1000 * logits),
    ],
)
def test_a_sound_classifier_passes(network: nn.Module) -> None:
    check_classifier(classifier_of(network), random_pixels())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["digits-cnn", "cifar-resnet20"])
def test_the_built_in_networks_pass(architecture: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    classifier = build_classifier(dataclasses.replace(SPEC, architecture=architecture)).eval()
    classifier.use_dtype(dtype)
    check_classifier(classifier, random_pixels())


MEAN, STD = (0.3, 0.5, 0.7), (0.2, 0.25, 0.3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Colours(nn.Module):
    """Right where it sees pixels normalised in its own way: the class is the nearest of three colours."""

    def __init__(self, seen: Change) -> None:
        super().__init__()
        self.seen = seen
        self.colours = torch.tensor([[0.35, 0.5, 0.6], [0.45, 0.4, 0.6], [0.4, 0.55, 0.45]])

    def forward(self, images: Tensor) -> Tensor:
        wanted = self.seen(self.colours.view(3, 3, 1, 1)).flatten(1)
        spread = wanted.std()
        distance: Tensor = ((images.mean((2, 3))[:, None] - wanted) / spread).square().sum(2)
        return -distance


def normalised(mean: Sequence[float], std: Sequence[float]) -> Change:
    return lambda pixels: (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def coloured(n: int = 90) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 3
    noise = 0.02 * torch.randn((n, *SHAPE), generator=torch.Generator().manual_seed(0))
    colours = Colours(lambda pixels: pixels).colours
    return (colours[labels].view(n, 3, 1, 1) + noise).clamp(0, 1), labels


AS_DECLARED = normalised(MEAN, STD)
WAYS: dict[str, tuple[Change, str]] = {
    "0..255": (lambda x: 255 * x, "pixels in 0..255: set mean to 0 and std to 1/255"),
    "unnormalised": (lambda x: x, "pixels in .0, 1. as they are: set mean to 0 and std to 1"),
    "-1..1": (lambda x: 2 * x - 1, "set mean and std to 0.5"),
    "imagenet": (normalised(*IMAGENET), r"set mean to \.485"),
    "bgr": (lambda x: AS_DECLARED(x).flip(1), r"declared normalisation with the channels in the order BGR.*flip\(1\)"),
    "bgr 0..255": (lambda x: 255 * x.flip(1), r"0\.\.255 with the channels in the order BGR.*1/255.* wrap the model"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_wants_other_pixels_is_found_out(way: str) -> None:
    seen, message = WAYS[way]
    pixels, labels = coloured()
    classifier = classifier_of(Colours(seen), dataclasses.replace(SPEC, mean=MEAN, std=STD))
    with pytest.raises(ClassifierError, match=f"but on 100.0% when its network gets .*{message}"):
        check_pixel_scale(classifier, pixels, labels)


def test_a_model_that_normalises_by_itself_must_not_be_normalised_twice() -> None:
    pixels, labels = coloured()
    inside = nn.Sequential(Lambda(AS_DECLARED), Colours(AS_DECLARED))
    with pytest.raises(ClassifierError, match="set mean to 0 and std to 1"):
        check_pixel_scale(classifier_of(inside, dataclasses.replace(SPEC, mean=MEAN, std=STD)), pixels, labels)
    check_pixel_scale(classifier_of(inside, SPEC), pixels, labels)


class Lambda(nn.Module):
    def __init__(self, function: Change) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def test_a_model_fed_as_declared_passes() -> None:
    pixels, labels = coloured()
    check_pixel_scale(
        classifier_of(Colours(AS_DECLARED), dataclasses.replace(SPEC, mean=MEAN, std=STD)), pixels, labels
    )


def test_a_classifier_without_a_spec_is_taken_as_it_is() -> None:
    pixels, labels = coloured()

    class Foreign:
        n_classes, input_shape = 3, SHAPE
        network = Colours(lambda x: 255 * x)

        def __call__(self, images: Tensor) -> Tensor:
            logits: Tensor = self.network(images)
            return logits

    with pytest.raises(ClassifierError, match="std to 1/255"):
        check_pixel_scale(Foreign(), pixels, labels)


def test_a_model_that_is_bad_in_every_way_is_not_blamed_on_the_pixels() -> None:
    """Chance alone must not accuse: random labels, and the best of nine ways."""
    pixels, _ = coloured()
    for seed in range(20):
        labels = torch.randint(3, (len(pixels),), generator=torch.Generator().manual_seed(seed))
        check_pixel_scale(classifier_of(Colours(AS_DECLARED)), pixels, labels)


def test_pixels_and_labels_must_match() -> None:
    pixels, labels = coloured()
    with pytest.raises(ClassifierError, match="90 images, 89 labels"):
        check_pixel_scale(classifier_of(Answering()), pixels, labels[1:])
