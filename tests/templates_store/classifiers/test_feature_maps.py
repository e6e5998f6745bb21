"""Feature maps are what the layers answer when they are run one by one, and looking leaves nothing behind."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from modeguard.detector import FeatureMapClassifier
from modeguard.templates_store.classifiers import (
    ClassifierError,
    ClassifierSpec,
    NetworkClassifier,
    build_classifier,
)
from tests.templates_store.classifiers.toy_classifiers import DIGITS, MEAN, RESNET, STD, normalised, random_pixels

SPEC = ClassifierSpec("none", 4, (3, 6, 6), MEAN, STD)


def sequence() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),  # overwrites what the batch norm answered
        nn.Flatten(),
        nn.Linear(64, 4),
    ).eval()


def ask(classifier: FeatureMapClassifier, images: Tensor, layers: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    return classifier.feature_maps(images, layers)


def run_one_by_one(network: nn.Sequential, rows: Tensor) -> dict[str, Tensor]:
    """The naive way: each layer on a copy of what the one before it answered."""
    answers = {}
    for name, layer in network.named_children():
        rows = layer(rows.clone())
        answers[name] = rows.clone()
    return answers


def n_hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


@pytest.mark.parametrize("layers", [[], ["4"], ["0", "1", "2", "3", "4"], ["3", "1", "1"]])
def test_they_are_what_the_layers_answer_one_by_one(layers: list[str]) -> None:
    classifier = NetworkClassifier(sequence(), SPEC).eval()
    images = random_pixels(SPEC.input_shape)
    expected = run_one_by_one(sequence(), normalised(images, SPEC))
    logits, maps = ask(classifier, images, layers)
    torch.testing.assert_close(logits, classifier(images))
    assert list(maps) == list(dict.fromkeys(layers))
    for layer, found in maps.items():
        torch.testing.assert_close(found, expected[layer])


def test_the_gradient_of_a_map_reaches_the_images() -> None:
    images, twin = (random_pixels(SPEC.input_shape).requires_grad_() for _ in range(2))
    _, maps = ask(NetworkClassifier(sequence(), SPEC).eval(), images, ["1"])
    maps["1"].square().sum().backward()
    run_one_by_one(sequence(), normalised(twin, SPEC))["1"].square().sum().backward()
    torch.testing.assert_close(images.grad, twin.grad)


def test_they_do_not_depend_on_the_batch() -> None:
    classifier = build_classifier(RESNET).eval()
    images = random_pixels(RESNET.input_shape)
    together = ask(classifier, images, ["layer2.0.downsample"])[1]["layer2.0.downsample"]
    alone = [ask(classifier, image[None], ["layer2.0.downsample"])[1]["layer2.0.downsample"] for image in images]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_a_layer_that_runs_twice_gives_its_last_answer() -> None:
    """The second ReLU of a residual block is the block's answer."""
    _, maps = ask(build_classifier(RESNET).eval(), random_pixels(RESNET.input_shape), ["layer1.0.relu", "layer1.0"])
    torch.testing.assert_close(maps["layer1.0.relu"], maps["layer1.0"])


def test_they_are_float32_whatever_is_computed_in() -> None:
    classifier = build_classifier(DIGITS).eval()
    images = random_pixels(DIGITS.input_shape)
    exact = ask(classifier, images, ["features.3"])[1]["features.3"]
    classifier.use_dtype(torch.bfloat16)
    narrow = ask(classifier, images, ["features.3"])[1]["features.3"]
    assert narrow.dtype == torch.float32
    assert 0 < (narrow - exact).abs().max() < 0.05 * exact.abs().max()


def test_the_network_itself_is_the_layer_without_a_name() -> None:
    logits, maps = ask(build_classifier(DIGITS).eval(), random_pixels(DIGITS.input_shape), [""])
    assert torch.equal(maps[""], logits)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("feature.3", r"'digits-cnn' has no layer 'feature\.3', did you mean features\.\d or .*\?"),
        ("network.features.3", r"did you mean features\.\d"),
        ("xyz", r"no layer 'xyz'; it has features, features\.0, .* and others"),
    ],
)
def test_an_unknown_layer_is_refused_with_the_nearest(layer: str, message: str) -> None:
    classifier = build_classifier(DIGITS).eval()
    with pytest.raises(ClassifierError, match=message):
        ask(classifier, random_pixels(DIGITS.input_shape), ["features.0", layer])
    assert n_hooks(classifier) == 0


class Skipping(nn.Module):
    """Has a layer that it does not run, and one that answers with more than a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(108, 4)
        self.pooled = nn.MaxPool2d(6, return_indices=True)
        self.linear = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        largest, _ = self.pooled(images)
        logits: Tensor = self.linear(largest.flatten(1))
        return logits


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("unused", "'unused' did not run, expected one that"),
        ("pooled", "'pooled' answers with tuple, expected one"),
    ],
)
def test_a_layer_without_a_map_is_named(layer: str, message: str) -> None:
    classifier = NetworkClassifier(Skipping(), SPEC).eval()
    with pytest.raises(ClassifierError, match=message):
        ask(classifier, random_pixels(SPEC.input_shape), ["linear", layer])
    assert n_hooks(classifier) == 0


def test_hooks_are_gone_when_the_network_fails_or_not() -> None:
    network = sequence()
    mine = network[0].register_forward_hook(lambda *_: None)
    classifier = NetworkClassifier(network, SPEC).eval()
    ask(classifier, random_pixels(SPEC.input_shape), ["0", "3"])
    assert n_hooks(classifier) == 1
    with pytest.raises(RuntimeError, match="shape"):
        ask(classifier, random_pixels((3, 9, 9)), ["0", "3"])
    assert n_hooks(classifier) == 1  # somebody else's stays
    mine.remove()


def test_looking_changes_no_answer() -> None:
    classifier = build_classifier(RESNET).eval()
    before, state = classifier(random_pixels(RESNET.input_shape)), copy.deepcopy(classifier.state_dict())
    ask(classifier, random_pixels(RESNET.input_shape, seed=1), ["layer3", "bn1"])
    assert torch.equal(classifier(random_pixels(RESNET.input_shape)), before)
    assert all(torch.equal(value, state[name]) for name, value in classifier.state_dict().items())
