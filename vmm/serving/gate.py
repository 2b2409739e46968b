"""What every request passes first: limits on how many, how large and how long.

A refusal is one JSON sentence, ``{"error": "..."}``: 408 and 413 for uploads that are too slow or
too large, 429 for a client with too many requests, 503 when the server has its hands full or took
too long. All that requests hold in memory is counted before it is read.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger(__name__)

DEFECT = "the server made a mistake; its log has the details"
_DRAIN_S = 5.0
_BODIES = 8
REQUEST = "vmm.request"
"""Key of a scope: the ``GatedRequest``."""
_OPEN = ("/health", "/model")
"""Paths that answer however much there is to do."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused.

    Attributes:
        max_body: Bytes of a request; eight times as many are held of all requests together.
        max_seconds: Of a video.
        max_pixels: Of a frame.
        max_requests: Requests that are worked on or wait, from all clients.
        max_per_client: From one address; None = no limit of its own.
        timeout: Seconds for a request, from its first byte to the answer.
        max_texts: Captions of a request.
        max_characters: Of a caption.
    """

    max_body: int = 32_000_000
    max_seconds: float = 600.0
    max_pixels: int = 3840 * 2160
    max_requests: int = 64
    max_per_client: int | None = None
    timeout: float = 30.0
    max_texts: int = 256
    max_characters: int = 10_000


class Refusal(HTTPException):  # type: ignore[misc]  # untyped where it is not installed
    """A request is not answered, in a sentence.

    Args:
        status: The HTTP status.
        sentence: Why, and the remedy.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)


class Gate:
    """An ASGI application in front of the one that does the work.

    Args:
        app: The one behind.
        limits: What is refused.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._clients: Counter[str] = Counter()
        self._held = 0
        self.answered: Counter[int] = Counter()
        """HTTP status -> answers."""

    @property
    def waiting(self) -> int:
        """Requests that are worked on or wait."""
        return self._clients.total()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = GatedRequest(self, receive, send)
        scope[REQUEST] = request
        try:
            if scope["path"] in _OPEN:
                await self._app(scope, receive, request.send)
            else:
                await self._let_in(scope, request)
            if request.refusal is not None:
                raise request.refusal
        except ClientDisconnect:
            pass
        except HTTPException as refusal:
            await request.refuse(refusal.status_code, refusal.detail)
        except Exception:  # noqa: BLE001  # one request fails, the server goes on
            _log.exception("%s %s", scope["method"], scope["path"])
            await request.refuse(500, DEFECT)
        finally:
            if request.status:
                self.answered[request.status] += 1

    async def _let_in(self, scope: Scope, request: GatedRequest) -> None:
        limits, client = self._limits, (scope.get("client") or ("",))[0]
        if limits.max_per_client is not None and self._clients[client] >= limits.max_per_client:
            raise Refusal(429, f"{limits.max_per_client} requests of yours are not answered yet")
        if self.waiting >= limits.max_requests:
            raise Refusal(503, f"{limits.max_requests} requests are waiting; try again later")
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limits.max_body:
            raise Refusal(413, _too_large(limits))
        self._clients[client] += 1
        try:
            async with asyncio.timeout(limits.timeout):
                await self._app(scope, request.receive, request.send)
        except TimeoutError:
            if not request.whole:
                raise Refusal(408, f"the upload took more than {limits.timeout:g} s") from None
            raise Refusal(
                503, f"no answer within {limits.timeout:g} s; send less, or try again later"
            ) from None
        finally:
            self._held -= request.size
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    def take(self, number: int, size: int) -> None:
        """Count bytes of a body before they are kept.

        Args:
            number: Bytes that came.
            size: Bytes of this body so far, with these.

        Raises:
            Refusal: If they are too many.
        """
        self._held += number
        if size > self._limits.max_body:
            raise Refusal(413, _too_large(self._limits))
        if self._held > _BODIES * self._limits.max_body:
            raise Refusal(503, "too much is being uploaded at once; try again later")


class GatedRequest:
    """A request on its way through the gate.

    Attributes:
        refusal: Set by whoever refuses it further inside; what is sent there is not passed on.
    """

    def __init__(self, gate: Gate, receive: Receive, send: Send) -> None:
        self._gate, self._receive, self._send = gate, receive, send
        self.refusal: HTTPException | None = None
        self.size = 0
        self.whole = False
        self.status = 0

    async def receive(self) -> Message:
        """Receive a part of the body."""
        message = await self._receive()
        if message["type"] == "http.request":
            number = len(message.get("body", b""))
            self.size += number
            self._gate.take(number, self.size)
            self.whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if self.refusal is not None:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def refuse(self, status: int, sentence: str) -> None:
        """Answer by a sentence, unless another answer has begun."""
        if self.status:
            return
        self.refusal = None
        await self._drain()
        body = json.dumps({"error": sentence}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *([(b"retry-after", b"1")] if status in (429, 503) else []),
            *([] if self.whole else [(b"connection", b"close")]),
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def _drain(self) -> None:
        """Let the client end its upload, unread: it would not look for an answer before."""
        try:
            async with asyncio.timeout(_DRAIN_S):
                while not self.whole:
                    message: dict[str, Any] = dict(await self._receive())
                    self.whole = not message.get("more_body", False)
        except TimeoutError:
            pass


def _too_large(limits: Limits) -> str:
    return f"a request may have {limits.max_body / 1e6:g} MB; cut the video, or encode it smaller"
