"""The text by which recipes and manifests name a classifier, read here and nowhere else."""

from dataclasses import dataclass

from modeguard.templates_store.classifiers.errors import ClassifierError, nearest_names
from modeguard.templates_store.classifiers.sources import ARCHITECTURES, BUILT_IN, FACTORY, SOURCES

__all__ = ["Architecture", "architecture_forms", "parse_architecture"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the text says.

    Attributes:
        kind: a key of `SOURCES`.
        name: what that source shall look up; empty where the kind says it all.
    """

    kind: str
    name: str


def parse_architecture(text: str) -> Architecture:
    """Read an architecture.

    "digits-cnn" is built in; "torchvision:resnet18" a kind and a name; "torch.export" a kind alone; and any other
    "package.module:factory" a factory. Whether a source knows the name is found when it is opened.

    Raises:
        ClassifierError: with the nearest known one and all forms.
    """
    kind, colon, name = text.partition(":")
    if kind in SOURCES and kind not in (BUILT_IN, FACTORY):
        takes_name = bool(SOURCES[kind].named)
        if bool(colon) != takes_name or bool(name) != takes_name:
            raise ClassifierError(f"architecture: {text!r} was expected to be {_form(kind)}")
        return Architecture(kind, name)
    if text in ARCHITECTURES:
        return Architecture(BUILT_IN, text)
    if name.isidentifier() and all(part.isidentifier() for part in kind.split(".")):
        return Architecture(FACTORY, text)
    forms = architecture_forms()
    raise ClassifierError(
        f"architecture: {text!r} is unknown{nearest_names(text, forms)}; allowed are {', '.join(forms)}"
    )


def architecture_forms() -> tuple[str, ...]:
    """All that an architecture can be: the built-in ones by name, of every other kind its form."""
    return (*ARCHITECTURES, *(_form(kind) for kind in SOURCES if kind != BUILT_IN))


def _form(kind: str) -> str:
    if kind == FACTORY:
        return "package.module:factory"
    named = SOURCES[kind].named
    return f"{kind}:{named}" if named else kind
