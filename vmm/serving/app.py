"""The HTTP interface of a served encoder: captions and videos to vectors, pairs to scores.

======================  ==========================================================================
``POST /text``          ``{"texts": ["a red ball", ...]}`` -> ``vectors``, one for each
``POST /video``         a file, as it is or as multipart -> ``vector``; with ``?per_frame=true``
                        also ``per_frame``, vectors over time, and ``seconds``
``POST /score``         the same with ``?text=...``, repeatable -> ``scores`` of each with the video
``GET /health``         what was answered, and how much waits
``GET /model``          what is served
``GET /openapi.json``   all this for programs
======================  ==========================================================================

A video is always the body itself: no name of a file and no address is ever taken.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, TypeVar

import torch
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import Response

from vmm.data.decode import DecodeError
from vmm.data.faults import SampleError
from vmm.export.encoder import Floats
from vmm.ops.similarity import RankBy
from vmm.serving.backends import Backend, EncodedClip
from vmm.serving.batching import Batcher
from vmm.serving.description import FILES, JSON, MULTIPART, TEXT_BODY, VIDEO_BODY, answers
from vmm.serving.gate import DEFECT, REQUEST, Gate, Limits, Refusal
from vmm.serving.reading import ClipReader, ReadClip
from vmm.text_output import visible
from vmm.version import __version__

By = Literal["cosine", "mixture", "matching"]
_Result = TypeVar("_Result")
_WAYS = {
    "/text": "POST", "/video": "POST", "/score": "POST",
    "/health": "GET", "/model": "GET", "/openapi.json": "GET",
}  # fmt: skip


class Service:
    """What answers requests, apart from HTTP.

    Args:
        backend: The model.
        limits: What is refused.
        max_batch: Requests that the model computes at once.
        max_wait: Seconds that the first of them waits for others.
        decoders: Files that are read at once, each by a process.
    """

    def __init__(
        self,
        backend: Backend,
        limits: Limits,
        max_batch: int = 16,
        max_wait: float = 0.005,
        decoders: int = 2,
    ) -> None:
        self.backend, self.limits = backend, limits
        self.reader = ClipReader(
            backend.clip, decoders, limits.max_seconds, limits.max_pixels, limits.timeout
        )
        compute: dict[str, Any] = {
            "text": self._encode_texts,
            "video": backend.encode_clips,
            "match": lambda jobs: [backend.match(*job) for job in jobs],
        }
        self.batcher = Batcher(compute, max_batch, max_wait)

    def warm_up(self) -> None:
        """Compute once what is compiled then, before anybody waits for it."""
        clip = self.backend.clip
        zeros = torch.zeros(clip.num_frames, 3, clip.image_size, clip.image_size)
        for kind, item in (("text", ["a"]), ("video", zeros)):
            self.batcher.submit(kind, item).result()

    def close(self) -> None:
        """Finish what was asked for; afterwards no thread and no process is left."""
        self.reader.close()
        self.batcher.close()

    async def texts(self, texts: list[str]) -> Floats:
        """Encode captions: (n, E)."""
        return await self._result(self.batcher.submit("text", texts))

    async def read(self, data: bytes) -> ReadClip:
        """Read a file."""
        try:
            return await asyncio.wrap_future(self.reader.submit(data))
        except DecodeError as error:
            raise Refusal(
                422, f"this is no video that can be used: {visible(str(error))}"
            ) from None

    async def video(self, read: ReadClip) -> EncodedClip:
        """Encode a clip."""
        return await self._result(self.batcher.submit("video", read.clip))

    async def match(self, texts: list[str], read: ReadClip, by: RankBy) -> Floats:
        """Score captions with a clip: (n,)."""
        return await self._result(self.batcher.submit("match", (texts, read.clip, by)))

    async def _result(self, future: Future[_Result]) -> _Result:
        try:
            return await asyncio.wrap_future(future)
        except (ValueError, SampleError) as error:
            raise Refusal(422, visible(str(error))) from None

    def _encode_texts(self, lists: list[list[str]]) -> list[Floats]:
        """Encode the captions of several requests together."""
        vectors = self.backend.encode_texts([text for texts in lists for text in texts])
        found, done = [], 0
        for texts in lists:
            found.append(vectors[done : done + len(texts)])
            done += len(texts)
        return found


def make_app(service: Service) -> Gate:
    """Make the ASGI application; it closes the service when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="vmm serve",
        version=__version__,
        description="Captions and videos to vectors.",
        docs_url=None,  # would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    gate = Gate(app, service.limits)
    _add_routes(app, service, gate)

    for kind in (HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _refuse)
    return gate


async def _refuse(request: Request, error: Exception) -> Response:
    """Leave it to the gate to say why."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        name = first["loc"][-1] if first["loc"] else "the request"
        error = Refusal(422, visible(f"{name}: {first['msg']}"))
    elif not isinstance(error, HTTPException):  # raised once more when this has returned
        error = Refusal(500, DEFECT)
    elif not isinstance(error, Refusal) and error.status_code in (404, 405):  # the framework's
        error = Refusal(error.status_code, _no_such_way(request))
    request.scope[REQUEST].refusal = error
    return Response()


def _no_such_way(request: Request) -> str:
    """Say what there is instead of what was asked for."""
    path = request.url.path
    if path in _WAYS:
        return f"{path} takes {_WAYS[path]}, not {request.method}"
    ways = ", ".join(f"{method} {known}" for known, method in _WAYS.items())
    return f"there is no {visible(path)[:80]}; there are {ways}"


def _check_names(given: Iterable[str], known: Sequence[str], what: str) -> None:
    """Refuse what would be ignored, such as a name with a slip of the pen."""
    for name in given:
        if name not in known:
            there = ", ".join(known) or "none"
            raise Refusal(422, f"there is no {what} {visible(name)[:40]!r}; known are: {there}")


def _add_routes(app: FastAPI, service: Service, gate: Gate) -> None:
    """Add what the module lists."""
    fingerprint = service.backend.fingerprint

    @app.post("/text", openapi_extra=TEXT_BODY, responses=answers("/text"))
    async def text(request: Request) -> dict[str, Any]:
        """Encode captions."""
        _check_names(request.query_params, (), "parameter")
        vectors = await service.texts(await _texts_of(request, service.limits))
        return {"vectors": vectors.tolist(), "fingerprint": fingerprint}

    @app.post("/video", openapi_extra=VIDEO_BODY, responses=answers("/video"))
    async def video(request: Request, per_frame: bool = False) -> dict[str, Any]:
        """Encode a video."""
        _check_names(request.query_params, ("per_frame",), "parameter")
        if per_frame and not service.backend.per_frame:
            raise Refusal(422, f"the backend {service.backend.name} gives one vector of a video")
        read = await service.read(await _file_of(request))
        found = await service.video(read)
        answer = {"vector": found.vector.tolist(), "fingerprint": fingerprint}
        if per_frame and found.per_frame is not None:
            step = len(read.seconds) // len(found.per_frame)
            seconds = read.seconds[::step]
            answer |= {"per_frame": found.per_frame.tolist(), "seconds": seconds}
        return answer

    @app.post("/score", openapi_extra=VIDEO_BODY, responses=answers("/score"))
    async def score(
        request: Request, text: Annotated[list[str], Query()], by: By = "cosine"
    ) -> dict[str, Any]:
        """Score captions with a video."""
        _check_names(request.query_params, ("text", "by"), "parameter")
        texts = _checked(text, service.limits)
        if by != "cosine" and not service.backend.matches:
            raise Refusal(422, f"this model has no matching head for by={by}; ask for by=cosine")
        read = await service.read(await _file_of(request))
        if by == "cosine":
            vectors, found = await asyncio.gather(service.texts(texts), service.video(read))
            scores = vectors @ found.vector
        else:
            scores = await service.match(texts, read, by)
        return {"scores": scores.tolist(), "by": by, "fingerprint": fingerprint}

    @app.get("/health", responses=answers("/health"))
    async def health() -> dict[str, Any]:
        """Tell what was answered, by HTTP status, and how much waits."""
        batcher = service.batcher
        answered = {str(status): number for status, number in sorted(gate.answered.items())}
        batches = {"batches": batcher.batches, "items": batcher.items}
        return {"status": "ok", "waiting": gate.waiting, "answered": answered, **batches}

    @app.get("/model", responses=answers("/model"))
    async def model() -> dict[str, Any]:
        """Tell what is served, and within which limits."""
        return {**service.backend.about(), "limits": vars(service.limits), "vmm": __version__}


def _media_type(request: Request) -> str:
    kind: str = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind


async def _texts_of(request: Request, limits: Limits) -> list[str]:
    """Read the captions of a request."""
    if _media_type(request) != JSON:
        raise Refusal(415, f'send {{"texts": ["..."]}} as content-type {JSON}')
    try:
        content = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise Refusal(422, f"the body is no JSON: {visible(str(error))}") from None
    texts = content.get("texts") if isinstance(content, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refusal(422, 'the body must be {"texts": ["...", ...]}, a list of captions')
    _check_names(content, ("texts",), "field")
    return _checked(texts, limits)


def _checked(texts: list[str], limits: Limits) -> list[str]:
    if not 1 <= len(texts) <= limits.max_texts:
        raise Refusal(422, f"{len(texts)} captions came, and 1 to {limits.max_texts} are allowed")
    longest = max(map(len, texts))
    if longest > limits.max_characters:
        raise Refusal(
            422, f"a caption has {longest} characters, and {limits.max_characters} are allowed"
        )
    return texts


async def _file_of(request: Request) -> bytes:
    """Read the video of a request."""
    kind = _media_type(request)
    if not kind or kind in FILES or kind.startswith("video/"):
        content: bytes = await request.body()
        return content
    if kind != MULTIPART:
        raise Refusal(
            415,
            f"send the video itself, as content-type video/mp4, {FILES[0]} or {MULTIPART}, not "
            f"as {visible(kind)[:80]}",
        )
    try:
        async with request.form(max_files=1, max_fields=8) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise Refusal(422, "the form has no file of the name `file`")
            content = await file.read()
    except Refusal:
        raise
    except HTTPException as error:
        raise Refusal(422, f"the form cannot be read: {visible(error.detail)}") from None
    return content
