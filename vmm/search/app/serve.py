"""The server of the page."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from pathlib import Path

import gradio
from starlette.middleware import Middleware

from vmm.command_line import DEBUG
from vmm.search.app.actions import Actions
from vmm.search.app.api import api
from vmm.search.app.guard import Guard
from vmm.search.app.layout import HEAD, SCRIPT, STYLE, layout
from vmm.search.app.page import Page
from vmm.search.query import Searcher
from vmm.text_output import complain, say

_SESSIONS = 200
"""Open pages whose results are kept."""


def serve(
    searcher: Searcher,
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 7860,
    max_upload_mb: int = 200,
) -> None:
    """Serve the page until an exception ends this, as Ctrl-C does.

    Args:
        searcher: The index to search.
        folder: For films and uploads, of ``own_folder``.
        host: Address to listen on.
        port: Port to listen on.
        max_upload_mb: Refuse larger uploads.

    Raises:
        ValueError: If the port is taken.
    """
    _tell_mistakes_in_a_line()
    actions = Actions(searcher, folder)
    blocks = layout(Page(actions))
    guard = Middleware(
        Guard, api=api(actions, folder), uploads=folder, max_upload=max_upload_mb * 10**6
    )
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
            state_session_capacity=_SESSIONS,
            css=STYLE,
            head=HEAD,
            js=SCRIPT,
            app_kwargs={"middleware": [guard]},
        )
        say(f"open http://{host}:{port} in a browser; Ctrl-C ends this")
        sys.stdout.flush()
        threading.Event().wait()  # the server has threads of its own
    except OSError as error:
        raise ValueError(f"cannot listen on {host}:{port}: {error}; try --port") from error
    finally:
        blocks.close(verbose=False)
        actions.end()


class _InALine:
    """Stands in for Gradio's ``traceback``: what a browser sent is told in a line."""

    @staticmethod
    def print_exc() -> None:
        """Print the exception that is being handled."""
        if os.environ.get(DEBUG):
            traceback.print_exc()
        else:
            kind, error, _ = sys.exc_info()
            complain(f"vmm app: {kind.__name__ if kind else ''}: {error}; {DEBUG}=1 shows more")

    format_exc = staticmethod(traceback.format_exc)


def _tell_mistakes_in_a_line() -> None:
    for module in (gradio.queueing, gradio.routes):
        if hasattr(module, "traceback"):
            module.traceback = _InALine
