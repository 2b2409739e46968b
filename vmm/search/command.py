"""``vmm app``; torch is loaded when it has begun."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmm.command_line import CommandParser, whole
from vmm.text_output import complain


def main_app(argv: Sequence[str]) -> int:
    """``vmm app``; returns the exit status."""
    parser = CommandParser(
        prog="vmm app",
        description="Serve a page to search an index with: type a sentence or drop a clip, see the "
        "moments play, ask about a video of your own. Nothing is loaded from or sent elsewhere.",
    )
    add = parser.add_argument
    add("index", type=Path, help="folder of the index")
    add("--encoder", help="where the index's encoder is now (default: where it was)")
    add("--approximate", action="store_true", help="look in the lists of vmm index --approximate")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; others than the default let other machines see the indexed "
        "videos (default: %(default)s)",
    )
    add("--port", type=whole(1, 65535), default=7860, help="default: %(default)s")
    add("--max-upload-mb", type=whole(1), default=200, help="default: %(default)s")
    options = parser.parse_args(argv)

    from vmm.search.app.ending import own_folder, until_sigterm
    from vmm.search.index import read_settings

    settings = read_settings(options.index)  # before all that takes long to load
    encoder = options.encoder or settings.encoder
    complain(f"loading the page, {options.index} and its encoder {encoder}; this takes a while")

    with until_sigterm(), own_folder() as folder:
        try:
            from vmm.search.app.serve import serve
        except ModuleNotFoundError as error:
            raise ValueError(
                f"the page needs the package {error.name!r}; install the extra: "
                'pip install "vmm-video[app]"'
            ) from error
        from vmm.search.query import Searcher

        searcher = Searcher.open(options.index, options.encoder, approximate=options.approximate)
        serve(searcher, folder, options.host, options.port, options.max_upload_mb)
    return 0
