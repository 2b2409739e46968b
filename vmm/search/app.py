"""``vmm app``: a page to search an index with, for this machine only unless told otherwise.

The page is made with Gradio. It gets small films cut out of the indexed videos, never a path of
one. Films and uploads are kept in a folder of their own that goes away with the page. Nothing is
loaded from elsewhere or sent there: no fonts, no scripts, no usage statistics.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import threading
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported

import gradio
import numpy as np
import pandas
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vmm.data.decode import DecodeError
from vmm.search.cut import cut_moment
from vmm.search.parts import Floats, Spans
from vmm.search.query import Hit, Searcher
from vmm.text_output import visible

_log = logging.getLogger(__name__)

_LOOKED_AT_AGAIN = 30
# What the page itself needs; browsers refuse to load anything from elsewhere.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; "
    "base-uri 'self'; form-action 'self'"
)
_NOTHING = (np.zeros((0, 2)), np.zeros(0, np.float32))
_Found = tuple[list[Hit], Floats]
_Shown = list[tuple[str, str]]
"""Film and caption of each moment."""


class Page:
    """What the page does, apart from how it looks.

    Args:
        searcher: Searches.
        folder: For the films.
    """

    def __init__(self, searcher: Searcher, folder: Path) -> None:
        self._searcher = searcher
        self._folder = folder

    def find(
        self, text: str, clip: str | None, top: int, again: bool
    ) -> tuple[_Shown, _Found, pandas.DataFrame, str]:
        """Search the index by a sentence or by a clip.

        Returns:
            For the gallery, to be remembered, and what ``inspect`` shows of the best.

        Raises:
            gradio.Error: If there is nothing to search by, or both, or nothing to find.
        """
        if not text.strip() and not clip:
            raise gradio.Error("Type a sentence or drop a clip.")
        if text.strip() and clip:
            raise gradio.Error("Search by the sentence or by the clip: remove one of them.")
        vector = self._vector(text, clip)
        again = again and bool(text.strip())
        hits = self._searcher.search(vector, max(_LOOKED_AT_AGAIN, top) if again else top)
        try:
            hits = self._searcher.rerank(text, hits) if again else hits
        except ValueError as error:  # the encoder has no matching head
            raise gradio.Error(visible(str(error))) from error
        if not hits:
            raise gradio.Error("The index is empty.")
        shown, hits = self._cut(hits[:top])
        return shown, (hits, vector), *self.inspect((hits, vector), 0)

    def inspect(self, found: _Found, number: int) -> tuple[pandas.DataFrame, str]:
        """Show the curve of a moment's video, and what is known of the moment."""
        hits, vector = found
        if not hits:
            return _table(*_NOTHING), "none of these videos can be read now"
        hit = hits[number]
        lines = [
            f"file: {hit.source}",
            f"moment: {hit.when}",
            f"similarity: {hit.similarity:.3f}",
        ]
        if hit.match is not None:
            lines.append(f"match: {hit.match:.2f}, of both: {hit.score:.2f}")
        said = "\n".join(map(visible, lines))
        return _table(*self._searcher.curve(vector, hit.source)), said

    def ask(self, video: str | None, text: str) -> tuple[_Shown, pandas.DataFrame]:
        """Search an uploaded video.

        Raises:
            gradio.Error: If the video or the sentence is missing, or the video cannot be read.
        """
        if not video or not text.strip():
            raise gradio.Error("Upload a video and type what to look for in it.")
        vector, path = self._searcher.text_vector(text), Path(video)
        try:
            hits, spans, cosines = self._searcher.look_through(vector, path)
        except ValueError as error:
            raise gradio.Error(visible(str(error))) from error
        return self._cut(hits)[0], _table(spans, cosines)

    def _vector(self, text: str, clip: str | None) -> Floats:
        if text.strip():
            return self._searcher.text_vector(text)
        try:
            return self._searcher.video_vector(str(clip))
        except ValueError as error:
            raise gradio.Error("This clip cannot be read.") from error

    def _cut(self, hits: list[Hit]) -> tuple[_Shown, list[Hit]]:
        """Cut films of the moments that can be read now."""
        shown, there = [], []
        for hit in hits:
            # Of everything that says which film it is: names in two shards may be equal.
            moment = repr((str(hit.source.path), hit.source.member, hit.start, hit.end))
            name = hashlib.sha256(moment.encode()).hexdigest()[:32]
            film = self._folder / f"{name}.mp4"
            try:
                if not film.exists():
                    film.write_bytes(cut_moment(hit.source.content(), hit.start, hit.end))
            except (DecodeError, OSError) as error:
                _log.warning("cannot show %s: %s", hit.source, error)
                continue
            shown.append((str(film), f"{hit.similarity:.3f}  {hit.when}"))
            there.append(hit)
        return shown, there


def _table(spans: Spans, cosines: Floats) -> pandas.DataFrame:
    """Make a curve of the moments: at their middles, and level to the ends of the video."""
    middles = spans.mean(1).tolist()
    if middles:
        middles = [float(spans[0, 0]), *middles, float(spans[-1, 1])]
        cosines = np.concatenate([cosines[:1], cosines, cosines[-1:]])
    return pandas.DataFrame({"seconds": middles, "similarity": cosines.tolist()})


def layout(page: Page) -> gradio.Blocks:
    """Put the page together."""
    with gradio.Blocks(title="vmm", analytics_enabled=False) as blocks:
        with gradio.Tab("Search"):
            found = gradio.State(([], None))
            with gradio.Row():
                with gradio.Column(scale=3):
                    text = gradio.Textbox(label="What to look for", elem_id="text", autofocus=True)
                    with gradio.Row():
                        top = gradio.Slider(1, 30, 8, step=1, label="Moments")
                        again = gradio.Checkbox(label="Look at the best again (matching head)")
                    search = gradio.Button("Search", variant="primary", elem_id="search")
                clip = gradio.Video(label="or a clip like it", sources=["upload"], height=220)
            films = gradio.Gallery(
                label="Moments", columns=4, height="auto", buttons=[], elem_id="films"
            )
            with gradio.Row():
                about = gradio.Textbox(
                    label="Selected", lines=4, interactive=False, elem_id="about"
                )
                curve = _curve("Relevance over time in the video of the selected moment", "curve")

            def inspect(state: _Found, event: gradio.SelectData) -> tuple[pandas.DataFrame, str]:
                return page.inspect(state, event.index)

            shown = [films, found, curve, about]
            for event in (text.submit, search.click):
                event(page.find, [text, clip, top, again], shown, api_visibility="private")
            films.select(inspect, [found], [curve, about], api_visibility="private")
        with gradio.Tab("Ask a video"):
            with gradio.Row():
                video = gradio.Video(label="Video", sources=["upload"], height=300, elem_id="own")
                with gradio.Column():
                    question = gradio.Textbox(label="What to look for", elem_id="question")
                    ask = gradio.Button("Ask", variant="primary", elem_id="ask")
            best = gradio.Gallery(
                label="Best moments", columns=3, height="auto", buttons=[], elem_id="best"
            )
            relevance = _curve("Relevance over time", "relevance")
            for event in (question.submit, ask.click):
                event(page.ask, [video, question], [best, relevance], api_visibility="private")
    return blocks


def _curve(label: str, name: str) -> gradio.LinePlot:
    return gradio.LinePlot(
        x="seconds", y="similarity", label=label, height=240, buttons=[], elem_id=name
    )


class _Guard:
    """Lets neither the page nor the server fetch anything from elsewhere.

    Gradio's server fetches addresses that a browser names; this page has no use for that.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", _POLICY.encode())
                message["headers"] = [*message.get("headers", []), policy]
            await send(message)

        path = scope.get("path", "")
        if scope["type"] == "http" and ("/proxy=" in path or "file=http" in path.lower()):
            await PlainTextResponse("Not Found", 404)(scope, receive, send)
        else:
            await self._app(scope, receive, answer)


def serve(
    searcher: Searcher, host: str = "127.0.0.1", port: int = 7860, max_upload_mb: int = 200
) -> None:
    """Serve the page until the process is interrupted.

    Args:
        searcher: The index to search.
        host: Address to listen on.
        port: Port to listen on.
        max_upload_mb: Refuse larger uploads.

    Raises:
        ValueError: If the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="vmm-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        blocks = layout(Page(searcher, Path(folder).resolve()))
        try:
            blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                allowed_paths=[],
                max_file_size=f"{max_upload_mb}mb",
                ssr_mode=False,
                enable_monitoring=False,
                run_history=False,
                footer_links=[],
                quiet=True,
                prevent_thread_lock=True,
                app_kwargs={"middleware": [Middleware(_Guard)]},
            )
            sys.stdout.write(f"open http://{host}:{port} in a browser; Ctrl-C ends this\n")
            sys.stdout.flush()
            threading.Event().wait()  # the server has threads of its own
        except OSError as error:
            raise ValueError(f"cannot listen on {host}:{port}: {error}; try --port") from error
        finally:
            blocks.close()
