"""The HTTP API beside the page: JSON, for programs; documented in ``docs/guides/search.md``.

=========================  ======================================================================
``GET /api/index``         name, size and model of the index
``POST /api/search``       the fields of ``vmm.search.find.Query``, as JSON or as a form, whose
                           ``clip`` is an uploaded file
``POST /api/ask``          a form: ``video``, an uploaded file; ``text``, ``window``, ``top``
=========================  ======================================================================

Answers are JSON objects. A mistake is ``{"error": sentence}`` with status 400, a body that is too
large 413, too many requests at once 503. No field is the name of a file on the server: ``folder``
is compared with names of indexed videos.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vmm.command_line import sentence
from vmm.search import results
from vmm.search.app.actions import Actions, Found
from vmm.search.app.guard import Refused, as_json
from vmm.search.ask import Answer
from vmm.search.results import Result
from vmm.text_output import visible

Fields = Mapping[str, Callable[[str], Any]]
"""Name -> how a form's text becomes the value."""
Work = Callable[[dict[str, Any], Path | None], dict[str, Any]]

_log = logging.getLogger(__name__)

_AT_ONCE = 32
_BLOCK = 2**20
_SEARCH: Fields = {
    "text": str, "top": int, "rerank": int, "rank_by": str, "folder": str, "after": float,
    "before": float, "min_duration": float, "max_duration": float,
}  # fmt: skip
_ASK: Fields = {"text": str, "window": float, "top": int}


def api(actions: Actions, folder: Path) -> Starlette:
    """Make the API.

    Args:
        actions: What it does.
        folder: For uploads while they are looked at.
    """
    desk = _Desk(folder)

    def search(values: dict[str, Any], clip: Path | None) -> dict[str, Any]:
        return {"hits": rows(actions.find(actions.query(clip=clip, **{"text": None, **values})))}

    def ask(values: dict[str, Any], video: Path | None) -> dict[str, Any]:
        if video is None:
            raise ValueError("upload a video as the field video of a form: curl -F video=@FILE")
        text, window, top = values.get("text", ""), values.get("window"), values.get("top", 3)
        return answered(actions.ask(video, text, window, top), text)

    async def search_route(request: Request) -> Response:
        return await desk.answer(request, _SEARCH, "clip", search)

    async def ask_route(request: Request) -> Response:
        return await desk.answer(request, _ASK, "video", ask)

    async def index_route(request: Request) -> Response:
        return as_json(actions.about())

    return Starlette(
        routes=[
            Route("/api/index", index_route),
            Route("/api/search", search_route, methods=["POST"]),
            Route("/api/ask", ask_route, methods=["POST"]),
        ]
    )


def rows(found: Found) -> list[dict[str, Any]]:
    """Return hits as ``vmm search --json`` prints them."""
    return list(results.rows([Result("1", found.query.text or "", "", found.hits)]))


def answered(answer: Answer, text: str) -> dict[str, Any]:
    """Return what was found in an upload, which has no name here."""
    hits = list(results.rows([Result("1", text, "", answer.hits)]))
    times, cosines = answer.spans.tolist(), answer.cosines.tolist()
    curve = [
        {"start": s, "end": e, "similarity": c} for (s, e), c in zip(times, cosines, strict=True)
    ]
    return {
        "hits": [{**hit, "file": ""} for hit in hits],
        "curve": curve,
        "problem": answer.problem,
    }


class _Desk:
    """Takes requests, a limited number at once.

    Args:
        folder: For uploads.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._busy = 0

    async def answer(self, request: Request, fields: Fields, file: str, work: Work) -> Response:
        """Answer a request.

        Args:
            request: JSON, or a form.
            fields: What it may say.
            file: What it may upload.
            work: Gets what it says, and the upload.
        """
        if self._busy >= _AT_ONCE:
            refusal = Refused(503, f"{self._busy} requests are being answered; ask again").answer()
            refusal.headers["Retry-After"] = "5"
            return refusal
        self._busy += 1
        upload: Path | None = None
        try:
            said = await _said(request)
            if isinstance(content := said.pop(file, None), UploadFile):
                upload = await _stored(content, self._folder)
            elif content is not None:
                raise ValueError(f"{file} must be an uploaded file: curl -F {file}=@FILE")
            values = {name: _value(fields, name, value) for name, value in said.items()}
            return as_json(await run_sync(work, values, upload))
        except Refused as refused:
            return refused.answer()
        except ValueError as error:
            return Refused(400, sentence(error)).answer()
        except (OSError, RuntimeError) as error:  # the disk is full, a process does not start
            _log.warning("%s: %s", request.url.path, visible(str(error)))
            return Refused(500, "this could not be answered now; ask again").answer()
        finally:
            self._busy -= 1
            if upload is not None:
                upload.unlink(missing_ok=True)


async def _said(request: Request) -> dict[str, Any]:
    """Read the fields of a request.

    Raises:
        ValueError: If it is neither JSON nor a form, or a damaged one.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            said = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"this is no JSON: {error}") from error
        if not isinstance(said, dict):
            raise ValueError('the JSON must be an object such as {"text": "a red circle"}')
        return said
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise ValueError(f"send JSON or a form (curl -F text=...), not {kind or 'nothing'!r}")
    try:
        form = await request.form(max_files=1, max_fields=20)
    except HTTPException as error:
        raise ValueError(f"this form cannot be read: {error.detail}") from error
    return dict(form)


def _value(fields: Fields, name: str, value: Any) -> Any:
    """Turn what a form says into what it means; JSON has its types.

    Raises:
        ValueError: If there is no such field, or it is no number.
    """
    if name not in fields:
        raise ValueError(f"there is no field {name!r:.40}; known are {', '.join(fields)}")
    kind = fields[name]
    if not isinstance(value, str) or kind is str or not value.strip():
        return value if not isinstance(value, str) or value.strip() else None
    try:
        return kind(value)
    except ValueError as error:
        what = "whole number" if kind is int else "number"
        raise ValueError(f"{name} {value!r:.40} is no {what}") from error


async def _stored(upload: UploadFile, folder: Path) -> Path:
    """Keep an upload under a name of ours."""
    path = folder / f"upload-{secrets.token_hex(16)}"
    with path.open("wb") as file:
        while block := await upload.read(_BLOCK):
            file.write(block)
    return path
