"""What ``/openapi.json`` says of the bodies that come and the answers that go.

The framework would describe refusals as it makes them itself, and no answer at all: a client that
is generated from that looks for a list where there is a sentence.
"""

from __future__ import annotations

from typing import Any

JSON, MULTIPART = "application/json", "multipart/form-data"
FILES = ("application/octet-stream", "application/mp4", "application/ogg")
"""Types of a body that is a video, beside ``video/*``."""

_TEXT, _NUMBER, _WHOLE = {"type": "string"}, {"type": "number"}, {"type": "integer"}
_FILE: dict[str, Any] = {"type": "string", "format": "binary"}
_VECTOR: dict[str, Any] = {"type": "array", "items": _NUMBER}
_REFUSALS = {
    408: "the upload takes too long",
    413: "the body is too large",
    415: "the body is of another type",
    422: "no such captions or parameters, or not a video that can be used",
    429: "this address has too many requests open",
    500: "a mistake of the server",
    503: "too much to do, or no answer in time",
}


def _object(required: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": required | more, "required": [*required]}


def _listed(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def _body(kinds: dict[str, Any]) -> dict[str, Any]:
    content = {kind: {"schema": schema} for kind, schema in kinds.items()}
    return {"requestBody": {"required": True, "content": content}}


TEXT_BODY = _body({JSON: _object({"texts": _listed(_TEXT)})})
VIDEO_BODY = _body({FILES[0]: _FILE, "video/*": _FILE, MULTIPART: _object({"file": _FILE})})

_ANSWERS: dict[str, dict[str, Any]] = {
    "/text": _object({"vectors": _listed(_VECTOR), "fingerprint": _TEXT}),
    "/video": _object(
        {"vector": _VECTOR, "fingerprint": _TEXT}, per_frame=_listed(_VECTOR), seconds=_VECTOR
    ),
    "/score": _object({"scores": _VECTOR, "by": _TEXT, "fingerprint": _TEXT}),
    "/health": _object(
        {
            "status": _TEXT,
            "waiting": _WHOLE,
            "answered": {"type": "object", "additionalProperties": _WHOLE},
            "batches": _WHOLE,
            "items": _WHOLE,
        }
    ),
    "/model": _object(
        {
            "backend": _TEXT,
            "fingerprint": _TEXT,
            "embedding_dim": _WHOLE,
            "num_frames": _WHOLE,
            "image_size": _WHOLE,
            "per_frame": {"type": "boolean"},
            "scores": _listed(_TEXT),
            "limits": {"type": "object"},
            "vmm": _TEXT,
        }
    ),
}


def answers(path: str) -> dict[int | str, dict[str, Any]]:
    """Describe the answers of a path, refusals too.

    Args:
        path: Such as ``/text``.

    Returns:
        HTTP status -> description, as FastAPI takes it for ``responses``.
    """
    refusals = _REFUSALS if path in ("/text", "/video", "/score") else (500,)
    sentence = {"content": {JSON: {"schema": _object({"error": _TEXT})}}}
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": _REFUSALS[status], **sentence} for status in refusals
    }
    content = {JSON: {"schema": _ANSWERS[path]}}
    return {200: {"description": "the answer", "content": content}, **found}
