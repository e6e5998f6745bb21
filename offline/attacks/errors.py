"""What this room refuses."""

from modeguard.detector import ModeguardError


class AttackError(ModeguardError, ValueError):
    """Parameters that no attack can have, or images and goals that it cannot start from."""
