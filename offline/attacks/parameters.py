"""What a parameter of an attack may be, and refusing what it may not."""

import math
from dataclasses import dataclass

from modeguard.offline.attacks.errors import AttackError


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number of at least `at_least`."""

    at_least: int = 1

    def __str__(self) -> str:
        return f"a whole number of at least {self.at_least}"

    def allows(self, value: object) -> bool:
        """Whether `value` is one."""
        return isinstance(value, int) and not isinstance(value, bool) and value >= self.at_least


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number in (above, at_most], or in [0, at_most] without `above`."""

    above: float | None = None
    at_most: float = math.inf

    def __str__(self) -> str:
        low = "at least 0" if self.above is None else f"above {self.above:g}"
        high = "" if math.isinf(self.at_most) else f" and at most {self.at_most:g}"
        return f"a number {low}{high}"

    def allows(self, value: object) -> bool:
        """Whether `value` is one."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            return False
        return (value >= 0 if self.above is None else value > self.above) and value <= self.at_most


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def __str__(self) -> str:
        return "true or false"

    def allows(self, value: object) -> bool:
        """Whether `value` is one of the two."""
        return isinstance(value, bool)


Allowed = Whole | Number | Flag


def check_parameters(attack: object, **allowed: Allowed) -> None:
    """Refuse an attack with a parameter that is none of what it may be.

    Args:
        attack: the record, in its `__post_init__`.
        allowed: name of a parameter to what it may be.

    Raises:
        AttackError: naming the first such parameter, its range and its value.
    """
    for name, range_ in allowed.items():
        check_value(name, getattr(attack, name), range_)


def check_value(name: str, value: object, allowed: Allowed) -> None:
    """Refuse one value.

    Raises:
        AttackError: naming it, its range and its value.
    """
    if not allowed.allows(value):
        raise AttackError(f"{name} is {allowed}, got {value!r}")
