"""What is wrong with the bytes of an image file."""

from modeguard.detector import ModeguardError


class InvalidImage(ModeguardError, ValueError):  # noqa: N818 - the word of the design
    """Bytes that are not an image which the classifier can be asked about.

    Attributes:
        reason: a stable slug, for programs: "empty", "unknown_format", "too_many_pixels", "animated", "transparent",
            "unsupported_mode", "damaged", "wrong_size" or "too_elongated".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def damaged(what: str) -> InvalidImage:
    """The error for a file that starts like an image but is not a whole one."""
    return InvalidImage(
        "damaged", f"an intact image file was expected, but {what}; send the file again or save it anew"
    )
