"""Whose code a classifier may bring along: nobody's, unless it is named."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from modeguard.templates_store.classifiers.errors import ClassifierError

__all__ = ["TRUST_EVERYTHING", "TRUST_NOTHING", "Trust"]

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Trust:
    """What may run that came with a classifier, as the one says who runs it.

    Attributes:
        factories: "package.module:factory" names that may be imported and called.
        programs: sha256 of the files with exported programs that may be loaded, 64 lower-case hexadecimal digits each.
        is_everything: whoever wrote a recipe runs what it names: the code and the file are the author's own.
    """

    factories: Collection[str] = ()
    programs: Collection[str] = ()
    is_everything: bool = False

    def __post_init__(self) -> None:
        for digest in self.programs:
            if not _SHA256.fullmatch(digest):
                raise ClassifierError(
                    f"a trusted program is named by its sha256, 64 digits of 0-9 and a-f, got {digest!r}; "
                    "`sha256sum FILE` prints it"
                )

    def check_factory(self, name: str) -> None:
        """Refuse a factory that was not named.

        Raises:
            ClassifierError: naming it, and how to allow it.
        """
        if not self.is_everything and name not in self.factories:
            raise ClassifierError(
                f"architecture {name!r} would import and call code that was not allowed; allowed are "
                f"{sorted(self.factories)}. Name it among the allowed factories if you trust that code"
            )

    def check_program(self, content: bytes, *, origin: Path) -> None:
        """Refuse a program whose digest was not named; nothing of it has been looked at by then.

        Args:
            content: bytes of the file.
            origin: where they came from, for the error.

        Raises:
            ClassifierError: with the digest, and how to trust it.
        """
        digest = sha256(content).hexdigest()
        if not self.is_everything and digest not in self.programs:
            raise ClassifierError(
                f"{origin} is a torch.export program, which may run code of its own: its sha256 {digest} was expected "
                "among the trusted programs. If you trust who made it, name it with `--trust-program` of `modeguard "
                "detect` or `serve`, or in MODEGUARD_TRUSTED_PROGRAMS; naming the digest of its bundle does it too"
            )


TRUST_NOTHING = Trust()
TRUST_EVERYTHING = Trust(is_everything=True)
