"""The one table from errors to HTTP: what a client is told when something is wrong, as RFC 9457 problem details.

The errors themselves live where they are raised, and know nothing of this.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from modeguard.detector import ModeguardError
from modeguard.service.http.body import BodyTimeoutError, BodyTooLargeError, MediaTypeError
from modeguard.service.http.multipart import MultipartError, TooManyImagesError
from modeguard.service.inference import BusyError, ImageInRequestError, NotReadyError

PROBLEM_MEDIA_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:modeguard:problem:"


@dataclass(frozen=True, slots=True)
class Problem:
    """How one kind of error is told.

    Attributes:
        status: HTTP status.
        slug: last part of the problem's type, stable.
        title: what kind of problem it is, the same each time.
        headers: headers that go with it.
        members: attributes of the error that become members of the problem.
    """

    status: int
    slug: str
    title: str
    headers: Mapping[str, str] = field(default_factory=dict)
    members: tuple[str, ...] = ()


_RETRY_SOON = {"Retry-After": "1"}
PROBLEMS: dict[type[Exception], Problem] = {
    ImageInRequestError: Problem(422, "invalid-image", "Invalid image", members=("index", "filename", "reason")),
    MultipartError: Problem(400, "malformed-multipart", "Malformed multipart body"),
    BodyTimeoutError: Problem(408, "body-timeout", "Body took too long"),
    BodyTooLargeError: Problem(413, "body-too-large", "Body too large"),
    TooManyImagesError: Problem(413, "too-many-images", "Too many images"),
    MediaTypeError: Problem(415, "unsupported-media-type", "Unsupported media type"),
    BusyError: Problem(429, "busy", "Too many requests at a time", _RETRY_SOON),
    NotReadyError: Problem(503, "not-ready", "Not ready", _RETRY_SOON),
}
INTERNAL = Problem(500, "internal-error", "Internal error")
INVALID_REQUEST = Problem(422, "invalid-request", "Invalid request")


def problem_response(problem: Problem, detail: str, request_id: str | None, members: Mapping[str, Any]) -> Response:
    """A problem as a response.

    Args:
        problem: its kind.
        detail: what happened this time.
        request_id: by which the operator finds it in the logs.
        members: further members.
    """
    known_type = f"{_TYPE_PREFIX}{problem.slug}" if problem.slug else "about:blank"
    content: dict[str, Any] = {"type": known_type, "title": problem.title, "status": problem.status, "detail": detail}
    if request_id is not None:
        content["request_id"] = request_id
    return JSONResponse({**content, **members}, problem.status, dict(problem.headers), PROBLEM_MEDIA_TYPE)


def _request_id_of(request: Request) -> str | None:
    """The id that `RequestEnvelope` gave the request."""
    return getattr(request.state, "request_id", None)


async def _on_domain_error(request: Request, error: Exception) -> Response:
    problem = next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), None)
    if problem is None:
        raise error  # no client can cause it or mend it: an internal error
    members = {name: getattr(error, name) for name in problem.members}
    return problem_response(problem, str(error), _request_id_of(request), members)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - for the type checker
    faults = [
        {"location": ".".join(str(part) for part in fault["loc"]), "message": str(fault["msg"])}
        for fault in error.errors()
    ]
    detail = "; ".join(f"{fault['location']}: {fault['message']}" for fault in faults)
    return problem_response(INVALID_REQUEST, detail, _request_id_of(request), {"errors": faults})


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type checker
    title = HTTPStatus(error.status_code).phrase
    problem = Problem(error.status_code, "", title, error.headers or {})
    return problem_response(problem, str(error.detail), _request_id_of(request), {})


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    ModeguardError: _on_domain_error,
    RequestValidationError: _on_invalid_request,
    HTTPException: _on_http_error,
}


def add_error_handlers(app: FastAPI) -> None:
    """Make every error of the application a problem."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
