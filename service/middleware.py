"""What wraps every request, as plain ASGI: the request id, the last net under errors, the key, the body's limit."""

from __future__ import annotations

import hmac
import logging
import re
import uuid
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ascribe.errors import InternalError, Unauthorized
from ascribe.logs import bound
from service.errors import BodyTooLarge, Misdirected, problem_response
from service.loopback import is_loopback

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/version", "/openapi.json", "/docs"})
_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")


class RequestContext:
    """Gives each request an id, the caller's if it is sane, and turns what nobody expected into a 500 problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if _SANE_ID.fullmatch(offered) else f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        with bound(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except ClientDisconnect:
                log.info("client went away")  # in the middle of its body: nobody is left to answer
            except Exception:
                log.exception("request failed")
                if started:
                    raise  # half a response is out: only closing the connection can tell the client
                error = InternalError("A fault of this server: its log says where, under the request id.")
                await problem_response(error, request_id)(scope, receive, send_with_id)


class LocalHosts:
    """Answers only to this machine's own names. Stands in for the key where there is none.

    A web page may have its own name lead to 127.0.0.1 (DNS rebinding) and its visitors' browsers ask us; what tells
    such a request from the user's own is the name it asks for.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _is_local(Headers(scope=scope).get("host", "")):
            error = Misdirected("Without an API key only this machine is served: ask for 127.0.0.1 or localhost.")
            await problem_response(error, scope["state"]["request_id"])(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_local(host: str) -> bool:
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name)


class BearerAuth:
    """Asks for the API key before anything of the request is read. All paths but a few are closed."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._expected = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._is_known(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        error = Unauthorized("Send the API key as 'Authorization: Bearer <key>'.")
        response = problem_response(error, scope["state"]["request_id"], {"WWW-Authenticate": "Bearer"})
        await response(scope, receive, send)

    def _is_known(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        # Constant time: how long the answer takes must not tell how much of a guess was right.
        return hmac.compare_digest(key.strip().encode(), self._expected) and scheme.lower() == "bearer"


class BodyLimit:
    """Refuses a body over the limit before it is held in memory. FastAPI's own limit answers in plain text.

    ``elsewhere``: limits of paths with one of their own.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, elsewhere: Mapping[str, int]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._elsewhere = elsewhere

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._elsewhere.get(scope["path"], self._max_bytes)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > max_bytes):
            await problem_response(BodyTooLarge(), scope["state"]["request_id"])(scope, receive, send)
            return
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                # Read inside the framework, which lets no other exception than its own through as it is.
                raise HTTPException(BodyTooLarge.status)
            return message

        await self._app(scope, receive_within_limit, send)
