"""What every API over HTTP shares: bodies within limits, multipart, the envelope of a request, and problems.

No address and no answer of an API lives here, and nothing that decodes or judges an image.
"""

from modeguard.service.http.body import check_media_type, read_body
from modeguard.service.http.middleware import RequestEnvelope
from modeguard.service.http.multipart import split_body
from modeguard.service.http.presence import client_presence
from modeguard.service.http.problems import (
    INTERNAL,
    INVALID_REQUEST,
    PROBLEM_MEDIA_TYPE,
    PROBLEMS,
    Problem,
    add_error_handlers,
)

__all__ = [
    "INTERNAL",
    "INVALID_REQUEST",
    "PROBLEMS",
    "PROBLEM_MEDIA_TYPE",
    "Problem",
    "RequestEnvelope",
    "add_error_handlers",
    "check_media_type",
    "client_presence",
    "read_body",
    "split_body",
]
