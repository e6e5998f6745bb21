"""Reading a request's body within limits: so many bytes, so much time, and only what can be images."""

import asyncio

from starlette.requests import Request

from modeguard.detector import ModeguardError
from modeguard.service.http.multipart import MULTIPART


class BodyTooLargeError(ModeguardError):
    """The body has more bytes than a body may have."""


class BodyTimeoutError(ModeguardError):
    """The client took too long to send its body."""


class MediaTypeError(ModeguardError):
    """The body is declared to be something that cannot be images."""


def check_media_type(request: Request) -> None:
    """Refuse a body that says it is something else than images, before it is read.

    The subtype of image/* is not looked at: what counts is what the bytes are.

    Raises:
        MediaTypeError: saying how to send an image.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise MediaTypeError(f"a body without Content-Encoding was expected, got {encoding!r}; send the file as it is")
    if not (media_type.startswith("image/") or media_type in {"application/octet-stream", MULTIPART}):
        raise MediaTypeError(
            f"Content-Type image/png, image/jpeg, image/webp, application/octet-stream or {MULTIPART} was expected, "
            f"got {media_type or 'none'!r}; with curl: -H 'Content-Type: image/png' --data-binary @FILE, or -F f=@FILE"
        )


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """The body, read as it comes and no further than allowed, whatever its headers say.

    Args:
        request: whose body has not been read.
        max_bytes: bound on its length.
        timeout_s: bound on the time until all of it is here.

    Raises:
        BodyTooLargeError: if the declared or the received length is above the bound.
        BodyTimeoutError: if the client takes longer.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        raise BodyTimeoutError(
            f"a whole body was expected within {timeout_s:g} s, got {len(body)} bytes; send smaller files"
        ) from None
    return bytes(body)


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"a body of at most {max_bytes} bytes was expected, got more; send fewer or smaller images at a time"
    )
