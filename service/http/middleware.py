"""Around every request: an id, one log line, an answer even when the code below has a fault, and no unread body."""

import asyncio
import logging
import time
import uuid
from contextlib import suppress
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modeguard.service.http.problems import INTERNAL, problem_response
from modeguard.service.inference import NoLongerWantedError

REQUEST_ID_HEADER = "X-Request-ID"
LINGER_S = 1.0
_log = structlog.get_logger("service")


class RequestEnvelope:
    """ASGI middleware that gives each request an id and turns unforeseen exceptions into a problem without details.

    Where a body is still to come when the answer begins, the connection is closed after it: nobody would bound that
    body. Before that some of it is thrown away, as a client that is cut off while it sends often never sees the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), 0
        is_body_read = not _has_body(scope)

        async def receive_and_note() -> Message:
            nonlocal is_body_read
            message = await receive()
            is_body_read = is_body_read or not message.get("more_body", False)
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                if not is_body_read:
                    headers["Connection"] = "close"
            elif not is_body_read and not message.get("more_body", False):
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        while not is_body_read:
                            await receive_and_note()
                message = {"type": "http.response.body"}
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive_and_note, send_with_id)
            except (ClientDisconnect, NoLongerWantedError):
                _log.info("client hung up")
                return
            except Exception:  # the outermost handler: whatever it is, log it and answer a problem without details
                _log.exception("unforeseen error")
                if status:
                    raise  # the answer is half sent: cutting the connection is all that is left to do
                detail = f"the server failed; its operator finds the cause in the logs under {request_id}"
                await problem_response(INTERNAL, detail, request_id, {})(scope, receive, send_with_id)
            _log.log(
                _level_of(status),
                "request",
                method=scope["method"],
                path=scope.get("raw_path", b"").decode("ascii", "backslashreplace"),
                status=status,
                duration_ms=round(1000 * (time.perf_counter() - started), 2),
            )


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _level_of(status: int) -> int:
    """Error is for our own failures only, whatever clients do wrong."""
    return logging.ERROR if status == HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
