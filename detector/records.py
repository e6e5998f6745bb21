"""Records of tensors: their leaves by name, picked, joined, moved, stored and read back by one walk.

A record is a frozen dataclass. A field `Annotated[Tensor, Leaf("n n_classes", torch.float32)]` is a leaf: its
dimensions have names, and one name has one size within a record; a first dimension `n` counts images, so that such
records can be picked from and joined. Fields that are records, or mappings from names to records, are walked into.
All other fields are plain: they stay as they are and are not stored.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, TypeVar, get_type_hints

import torch
from torch import Tensor

from modeguard.detector.errors import ModeguardError

Record = TypeVar("Record")


class RecordError(ModeguardError, ValueError):
    """Tensors that make no such record."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a tensor of a record is.

    Attributes:
        dims: names of its dimensions, with spaces between them; empty for a single number.
        dtype: the type that it is stored in.
    """

    dims: str
    dtype: torch.dtype

    @property
    def is_per_image(self) -> bool:
        """Whether its first dimension counts images."""
        return self.dims.split(" ", 1)[0] == "n"


def check_shapes(record: Any) -> None:
    """Refuse a record whose leaves do not have the dimensions that they name.

    Raises:
        RecordError: naming the leaf, the shape that was expected and the one that came.
    """
    sizes: dict[str, int] = {}
    for name, leaf in _leaves(type(record)).items():
        shape, dims = tuple(getattr(record, name).shape), leaf.dims.split()
        if len(shape) != len(dims) or any(sizes.setdefault(dim, size) != size for dim, size in zip(dims, shape)):  # noqa: B905 - the lengths are compared first
            known = {dim: sizes[dim] for dim in dims if dim in sizes}
            raise RecordError(
                f"{name} of {type(record).__name__} is ({', '.join(dims)})"
                f"{f' with {known}' if known else ''}, got {shape}"
            )


def to_tensors(record: object) -> dict[str, Tensor]:
    """The leaves by name, such as "scorer.scaling.center", on the CPU and in the types that they are stored in."""
    return {name: tensor.detach().to("cpu", leaf.dtype).contiguous() for name, tensor, leaf in _walk(record, "")}


def from_tensors(kind: type[Record], tensors: Mapping[str, Tensor], /, **given: object) -> Record:
    """A record made of tensors by name, which are checked: anybody may have written them.

    Args:
        kind: the record's type.
        tensors: as `to_tensors` names them, and no others.
        given: plain fields, and fields whose own type no annotation tells.

    Raises:
        RecordError: if a tensor is missing, unknown, or of another type than it is stored in.
        ModeguardError: what the record itself says against them.
    """
    values = dict(given)
    known: set[str] = set()
    for name, hint in _hints(kind).items():
        if name in given:
            continue
        if name in _leaves(kind):
            values[name] = _stored(kind, name, tensors)
            known.add(name)
        elif is_dataclass(hint) and isinstance(hint, type):
            values[name] = from_tensors(hint, under(name, tensors))
            known |= {each for each in tensors if each.startswith(f"{name}.")}
    unknown = sorted(set(tensors) - known - {each for each in tensors if each.split(".", 1)[0] in given})
    if unknown:
        raise RecordError(f"{kind.__name__} has no tensor {', '.join(unknown)}")
    return kind(**values)


def under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one field that is a record, by their names in it."""
    return {each.removeprefix(f"{name}."): tensor for each, tensor in tensors.items() if each.startswith(f"{name}.")}


def pick(record: Record, rows: Tensor | slice) -> Record:
    """The record of some of its images.

    Args:
        record: of n images.
        rows: indices (m,) int64, a mask (n,) bool, or a slice.
    """
    return _mapped(record, lambda tensors, leaf: tensors[0][rows] if leaf.is_per_image else tensors[0])


def join(records: Sequence[Record]) -> Record:
    """Records of several sets of images, made alike, as one; what does not count images is that of the first."""
    return _mapped(
        records[0], lambda tensors, leaf: torch.cat(list(tensors)) if leaf.is_per_image else tensors[0], records[1:]
    )


def to_device(record: Record, device: torch.device | str) -> Record:
    """The same record on another device."""
    return _mapped(record, lambda tensors, _: tensors[0].to(device))


def _stored(kind: type, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    if name not in tensors:
        raise RecordError(f"{kind.__name__} needs the tensor {name}, which is missing")
    tensor, leaf = tensors[name], _leaves(kind)[name]
    if tensor.dtype != leaf.dtype:
        raise RecordError(f"{name} of {kind.__name__} is stored as {leaf.dtype}, got {tensor.dtype}")
    return tensor


def _walk(record: Any, prefix: str) -> Iterator[tuple[str, Tensor, Leaf]]:
    leaves = _leaves(type(record))
    for name, value in _values(record):
        if name in leaves:
            yield f"{prefix}{name}", value, leaves[name]
        else:
            for key, inner in _parts(name, value):
                yield from _walk(inner, f"{prefix}{key}.")


def _mapped(
    record: Record, change: Callable[[Sequence[Tensor], Leaf], Tensor], others: Sequence[Record] = ()
) -> Record:
    """The record with each leaf changed; `change` also gets the same leaf of the other records."""
    leaves, changed = _leaves(type(record)), dict[str, Any]()
    for name, value in _values(record):
        same = [value, *(getattr(other, name) for other in others)]
        if name in leaves:
            changed[name] = change(same, leaves[name])
        elif isinstance(value, Mapping) and list(_parts(name, value)):
            changed[name] = {key: _mapped(value[key], change, [each[key] for each in same[1:]]) for key in value}
        elif list(_parts(name, value)):
            changed[name] = _mapped(value, change, same[1:])
    return replace(record, **changed) if changed else record  # type: ignore[type-var]  # records are dataclasses


def _values(record: object) -> Iterator[tuple[str, Any]]:
    return ((field.name, getattr(record, field.name)) for field in fields(record))  # type: ignore[arg-type]


def _parts(name: str, value: object) -> Iterator[tuple[str, object]]:
    """The records with leaves in a field that is no leaf: itself, or those of a mapping by name."""
    inner = {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, Mapping) else {name: value}
    return ((key, each) for key, each in inner.items() if _has_leaves(each))


def _has_leaves(value: object) -> bool:
    return is_dataclass(value) and next(_walk(value, ""), None) is not None


def _read_hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind) if field.init}


def _read_leaves(kind: Any) -> dict[str, Leaf]:
    hints = get_type_hints(kind, include_extras=True)
    annotated = {field.name: getattr(hints[field.name], "__metadata__", ()) for field in fields(kind)}
    return {name: found[0] for name, found in annotated.items() if found and isinstance(found[0], Leaf)}


_hints: Callable[[type], dict[str, Any]] = cache(_read_hints)
_leaves: Callable[[type], dict[str, Leaf]] = cache(_read_leaves)
