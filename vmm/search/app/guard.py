"""What stands before Gradio's server and the API: it fetches nothing, and reads only uploads."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vmm.text_output import visible

_log = logging.getLogger(__name__)

# What the page itself needs; browsers refuse to load anything from elsewhere.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; "
    "base-uri 'self'; form-action 'self'"
)
# Gradio has many more, for proxies, other people's code, recordings and its own statistics.
_SERVED = (
    *("/static/", "/assets/", "/svelte/", "/theme.css", "/config", "/favicon.ico", "/robots.txt"),
    *("/manifest.json", "/pwa_icon", "/gradio_api/info", "/gradio_api/queue/", "/gradio_api/call/"),
    *("/gradio_api/upload", "/gradio_api/file=", "/gradio_api/heartbeat/", "/gradio_api/reset"),
    *("/gradio_api/cancel", "/gradio_api/startup-events", "/gradio_api/theme.css"),
    *("/gradio_api/app_id", "/gradio_api/openapi.json", "/gradio_api/run/"),
)
_API = "/api/"
_JSON_BYTES = 2**20
_AROUND_UPLOADS = 2**16
"""Bytes of a form beside its file."""


def as_json(content: object, status: int = 200) -> Response:
    """Return an answer in JSON: in ASCII, for names of files need not be UTF-8."""
    return Response(json.dumps(content), status, media_type="application/json")


class Refused(Exception):  # it is an answer, not a fault
    """What is answered instead of what was asked for.

    Args:
        status: Of HTTP.
        why: A sentence with the remedy.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status

    def answer(self) -> Response:
        """Return it as JSON."""
        return as_json({"error": visible(str(self))}, self.status)


class Guard:
    """Lets through what the page and its API need.

    Gradio's server fetches addresses and reads files that a browser names; this page has no use
    for either. A mistake that gets here costs a line in the log and a status, no traceback.

    Args:
        app: Gradio's server.
        api: The API.
        uploads: Folder of the uploads: no request may name another file.
        max_upload: Bytes of an upload.
    """

    def __init__(self, app: ASGIApp, api: ASGIApp, uploads: Path, max_upload: int) -> None:
        self._app, self._api = app, api
        self._uploads, self._max_upload = uploads, max_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                policy = (b"content-security-policy", _POLICY.encode())
                message["headers"] = [*message.get("headers", []), policy]
            await send(message)

        try:
            await self._pass_on(scope, receive, answer)
        except Refused as refusal:
            if not started:
                await refusal.answer()(scope, receive, answer)
        except Exception as error:  # noqa: BLE001  # of Gradio, or a browser that went away
            said = visible(f"{type(error).__name__}: {error}")
            _log.warning("%s %s: %s", scope["method"], visible(scope["path"]), said)
            if not started:
                await Refused(500, "this could not be answered; ask again").answer()(
                    scope, receive, answer
                )

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, headers = scope["path"], dict(scope["headers"])
        served = path == "/" or path.startswith((*_SERVED, _API))
        if not served or "file=http" in path.lower():
            raise Refused(404, "there is nothing at this address")
        if path.startswith(_API):
            if headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
                raise Refused(403, "pages of other sites cannot use this; ask without a browser")
            await self._api(scope, self._counted(receive), send)
        elif scope["method"] == "POST" and not path.startswith("/gradio_api/upload"):
            await self._app(scope, await self._checked(receive), send)
        else:
            await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        """Stop receiving where it is too much, whatever the headers say."""
        left = self._max_upload + _AROUND_UPLOADS

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                most = f"{self._max_upload / 1e6:g} MB"
                raise Refused(413, f"uploads may have {most}; give a shorter or smaller file")
            return message

        return counted

    async def _checked(self, receive: Receive) -> Receive:
        """Read a body of JSON, look at what it names, and give it on."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message["type"] == "http.request" and message.get("more_body", False)
            if len(body) > _JSON_BYTES:
                raise Refused(413, f"JSON may have {_JSON_BYTES} bytes; upload files")
        try:
            content = json.loads(body) if body.strip() else None
        except (ValueError, RecursionError) as error:
            raise Refused(400, f"this is no JSON: {error}") from error
        for name in _files_in(content):
            if not self._is_upload(name):
                raise Refused(400, f"{name!r:.100} is no uploaded file; upload it first")
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again

    def _is_upload(self, name: object) -> bool:
        if not isinstance(name, str) or "\0" in name:
            return False
        path = Path(name)
        return path.is_absolute() and self._uploads in path.resolve().parents


def _files_in(content: Any) -> Iterator[object]:
    """Yield what Gradio would take for names of files."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("path") is not None:
                yield value["path"]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
