"""A detector's configuration as JSON values, and back: questions and scorer by their names in the method's tables."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from pydantic import TypeAdapter

from modeguard.detector import DetectorConfig
from modeguard.detector.questions import QUESTIONS
from modeguard.detector.scorers import SCORERS

_LONGEST_LIST = 10_000

Record = TypeVar("Record")
Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class _Plain:
    """A configuration before questions and scorer are looked up."""

    features: tuple[str, ...]
    questions: dict[str, dict[str, Any]]
    n_templates: int
    n_logits: int
    scorer: dict[str, Any]
    target_fpr: float


def plain_of(config: DetectorConfig) -> dict[str, Any]:
    """JSON values; `config_of` reads them back."""
    scorer: Any = config.scorer
    return {
        "features": list(config.features),
        "questions": {name: asdict(question) for name, question in config.questions.items()},  # type: ignore[call-overload]  # questions are dataclasses
        "n_templates": config.n_templates,
        "n_logits": config.n_logits,
        "scorer": {"kind": scorer.kind, **asdict(scorer)},
        "target_fpr": config.target_fpr,
    }


def config_of(plain: object) -> DetectorConfig:
    """The configuration that JSON values describe; anybody may have written them, so they are checked.

    Raises:
        ValueError: if they make none; names that are unknown are answered with the known ones.
    """
    values = _record_of(_Plain, plain)
    kind = values.scorer.get("kind")
    scorer = {name: value for name, value in values.scorer.items() if name != "kind"}
    return DetectorConfig(
        features=values.features,
        questions={
            name: _record_of(_known(QUESTIONS, name, "question"), options) for name, options in values.questions.items()
        },
        n_templates=values.n_templates,
        n_logits=values.n_logits,
        scorer=_record_of(_known(SCORERS, kind, "scorer").options, scorer),
        target_fpr=values.target_fpr,
    )


def _record_of(kind: type[Record], plain: object) -> Record:
    """A record of JSON values, strictly: no unknown keys, no text for numbers."""
    if not isinstance(plain, Mapping):
        raise ValueError(f"an object was expected, got {plain!r}")
    _refuse_long_lists(plain)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # records are dataclasses
    if unknown := sorted(set(plain) - set(known)):
        raise ValueError(f"unknown {', '.join(unknown)}; the known ones are {', '.join(known)}")
    # as JSON, since there a list may stand for a tuple in strict mode too
    return TypeAdapter(kind).validate_json(json.dumps(plain), strict=True)


def _refuse_long_lists(plain: Mapping[object, object]) -> None:
    for name, value in plain.items():
        if isinstance(value, list | Mapping) and len(value) > _LONGEST_LIST:
            raise ValueError(f"{name} is at most {_LONGEST_LIST} long, got {len(value)}")


def _known(table: Mapping[str, Entry], name: object, what: str) -> Entry:
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"unknown {what} {name!r}; the known ones are {', '.join(table)}")
    return table[name]
