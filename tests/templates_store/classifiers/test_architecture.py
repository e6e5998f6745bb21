"""The text of an architecture: every form is read as one kind and name, and nothing else is."""

import re

import pytest

from modeguard.templates_store.classifiers import (
    Architecture,
    ClassifierError,
    architecture_forms,
    parse_architecture,
)
from modeguard.templates_store.classifiers.sources import ARCHITECTURES, SOURCES


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("digits-cnn", "built-in", "digits-cnn"),
        ("torchvision:resnet18", "torchvision", "resnet18"),
        ("timm:hf-hub:somebody/model", "timm", "hf-hub:somebody/model"),
        ("torch.export", "torch.export", ""),
        ("mylab.nets:small", "factory", "mylab.nets:small"),
        ("nets:small", "factory", "nets:small"),
        ("factory:small", "factory", "factory:small"),  # a module may well have that name
    ],
)
def test_a_text_is_a_kind_and_a_name(text: str, kind: str, name: str) -> None:
    assert parse_architecture(text) == Architecture(kind, name)
    assert kind in SOURCES


def test_every_form_is_read_by_its_own_source() -> None:
    kinds = [parse_architecture(form).kind for form in architecture_forms()]
    assert kinds == ["built-in"] * len(ARCHITECTURES) + [kind for kind in SOURCES if kind != "built-in"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("digit-cnn", "digits-cnn"),
        ("cifar-resnet-20", "cifar-resnet20"),
        ("torch.exprt", "torch.export"),
        ("torchvision-NAME", "torchvision:NAME"),
    ],
)
def test_an_unknown_one_is_refused_with_the_nearest_and_all(text: str, meant: str) -> None:
    everything = re.escape(", ".join(architecture_forms()))
    with pytest.raises(
        ClassifierError, match=f"{text!r} is unknown, did you mean {meant}\\?; allowed are {everything}"
    ):
        parse_architecture(text)


@pytest.mark.parametrize(
    "text", ["", "resnet", ":", ":small", "mylab.nets:", "my lab:small", "a..b:c", "built-in:digits-cnn"]
)
def test_what_has_no_form_is_refused(text: str) -> None:
    with pytest.raises(ClassifierError, match="is unknown"):
        parse_architecture(text)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("torchvision", "torchvision:NAME"),
        ("timm:", "timm:NAME"),
        ("torch.export:model", "torch.export"),
        ("torch.export:", "torch.export"),
    ],
)
def test_a_name_too_few_or_too_many_is_told_the_form(text: str, form: str) -> None:
    with pytest.raises(ClassifierError, match=f"{text!r} was expected to be {re.escape(form)}$"):
        parse_architecture(text)
