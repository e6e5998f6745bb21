"""Seeds from what they are for, so that each part of the work has its own and none depends on the order of the work."""

import hashlib

__all__ = ["seed_of"]


def seed_of(text: str) -> int:
    """A seed that every generator takes, from a text; in [0, 2**56)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
