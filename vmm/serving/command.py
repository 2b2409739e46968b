"""``vmm serve``: an exported encoder behind HTTP."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence

from vmm.command_line import CommandParser, positive, whole
from vmm.hub import refuse_no_folder
from vmm.text_output import complain

PORT = 8000
_GRACE_S = 5


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="vmm serve",
        description="Serve an exported encoder over HTTP: captions and videos to vectors, pairs to "
        "scores. Requests that come together are computed together; what is too large, too long, "
        "too slow or too much is refused in a sentence. SIGTERM and Ctrl-C finish what was "
        "accepted.",
    )
    add = parser.add_argument
    add("encoder", help="encoder folder, OWNER/NAME on the hub, or folder of ONNX files")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; there is no password, so others than the default belong behind "
        "a proxy that has one (default: %(default)s)",
    )
    add("--port", type=whole(0, 65535), default=PORT, help="0: any (default: %(default)s)")
    add("--num-frames", type=whole(1), help="frames looked at in a video (default: as trained)")
    add("--device", help="where torch computes (default: the GPU if there is one)")
    add("--max-batch", type=whole(1), default=16, help="requests computed at once (default: 16)")
    add("--max-wait-ms", type=positive, default=5.0, help="wait for others so long (default: 5)")
    add("--decoders", type=whole(1), help="files read at once (default: one per core)")
    add("--max-body-mb", type=positive, default=32.0, help="of a request (default: 32)")
    add("--max-seconds", type=positive, default=600.0, help="of a video (default: 600)")
    add("--max-megapixels", type=positive, default=8.3, help="of a frame (default: 8.3, 4K)")
    add("--max-requests", type=whole(1), default=64, help="at work or waiting (default: 64)")
    add("--max-per-client", type=whole(1), help="the same of one address (default: no limit)")
    add("--timeout", type=positive, default=30.0, help="seconds of a request (default: 30)")
    return parser


def main(argv: Sequence[str]) -> int:
    """``vmm serve``; returns the exit status."""
    options = _parser().parse_args(argv)
    refuse_no_folder(options.encoder)
    try:
        import uvicorn

        from vmm.serving.app import Service, make_app
    except ModuleNotFoundError as error:
        raise ValueError(
            f"serving needs the package {error.name!r}; install the extra: "
            'pip install "vmm-video[serve]"'
        ) from error
    from vmm.serving.backends import open_backend
    from vmm.serving.gate import Limits

    limits = Limits(
        max_body=round(options.max_body_mb * 1e6),
        max_seconds=options.max_seconds,
        max_pixels=round(options.max_megapixels * 1e6),
        max_requests=options.max_requests,
        max_per_client=options.max_per_client,
        timeout=options.timeout,
    )
    listener = _listen(options.host, options.port)
    complain(f"loading {options.encoder}; this takes a while")
    backend = open_backend(options.encoder, options.num_frames, options.device)
    decoders = options.decoders or os.cpu_count() or 1
    service = Service(backend, limits, options.max_batch, options.max_wait_ms / 1e3, decoders)
    service.warm_up()
    config = uvicorn.Config(
        make_app(service),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(options.timeout + _GRACE_S),
        lifespan="on",
    )
    listener.listen()  # who reads the next line may connect
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    sys.stdout.write(
        f"serving {options.encoder} ({backend.name}) at http://{address}:{port}; Ctrl-C ends this\n"
    )
    sys.stdout.flush()
    # uvicorn raises the signal again when all is done: Ctrl-C then is one, SIGTERM was obeyed.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        uvicorn.Server(config).run([listener])
    finally:
        listener.close()
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Take the address before anything is loaded."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise ValueError(f"cannot listen on {host}:{port}: {error}; try --port") from error
    return listener
