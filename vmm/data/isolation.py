"""Decoding in a process of its own, so that a file that hangs or crashes it costs one sample.

The child lives on from file to file. The file goes to it through a socket, the frames come back
through shared memory; in between the parent chooses the frames, so that what is drawn does not
depend on where decoding happens. Started as a program, not forked: forking is unsafe beside
threads, and the workers of a ``DataLoader`` must not use ``multiprocessing``.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vmm.data.decode import (
    Choose,
    ChooseParts,
    DecodeError,
    Decoder,
    decode_parts,
    decode_video,
)
from vmm.data.pictures import decode_image

TIMEOUT_S = 60.0
"""A file that takes longer counts as hung; a ``DataLoader`` waits for ten minutes."""
_SERVE = "from vmm.data.isolation import serve; serve()"


class IsolatedDecoder:
    """A child process that decodes; started on first use and again after it was lost.

    Args:
        timeout: Seconds that each step of decoding a file may take.
        program: What the child runs, in Python.
    """

    def __init__(self, timeout: float = TIMEOUT_S, program: str = _SERVE) -> None:
        self._timeout = timeout
        self._program = program
        self._child: subprocess.Popen[bytes] | None = None
        self.cpu_seconds = 0.0
        """Processor time of the children so far, up to the last file that one has done."""

    def video(
        self, data: bytes, choose: Choose, decoder: Decoder = "pyav", **limits: int
    ) -> np.ndarray:
        """Do what ``decode_video`` does: (T, H, W, 3) uint8.

        Args:
            data: As for ``decode_video``.
            choose: As for ``decode_video``.
            decoder: As for ``decode_video``.
            limits: ``max_pixels`` and ``max_frames`` of ``decode_video``, where they are others.

        Raises:
            DecodeError: As ``decode_video``, or because the child hung or crashed.
            RuntimeError: If the child cannot start or failed by a mistake of vmm, with its trace.
        """
        request = {"media": "video", "decoder": decoder, "limits": limits}
        (frames,) = self._ask(request, data, choose)
        return frames

    def image(self, data: bytes) -> np.ndarray:
        """Do what ``decode_image`` does: (1, H, W, 3) uint8.

        Raises:
            DecodeError: As ``decode_image``, or because the child hung or crashed.
        """
        (picture,) = self._ask({"media": "image"}, data, lambda times: [0])
        return picture

    def parts(self, video: bytes | Path, choose: ChooseParts) -> Iterator[np.ndarray]:
        """Do what ``decode_parts`` does, one part ahead.

        The child is not free for other files before all parts have been taken.

        Returns:
            (T, H, W, 3) uint8 RGB, for each part.

        Raises:
            DecodeError: As ``decode_parts``, or because the child hung or crashed.
            OSError: As ``decode_parts``.
        """
        if isinstance(video, bytes):
            return self._ask({"media": "parts"}, video, choose)
        return self._ask({"media": "parts", "path": str(video.absolute())}, b"", choose)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
            self._messages.close()
            self._socket.close()
            self._frames.close()

    def _ask(
        self, request: dict[str, Any], data: bytes, choose: Choose | ChooseParts
    ) -> Iterator[np.ndarray]:
        """Send a file; yield what the child makes of it."""
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._start()
        answer: dict[str, Any] = {}
        ended = False
        try:
            self._socket.sendall(_line({**request, "size": len(data)}))
            self._socket.sendall(data)
            while not ended:
                answer = _read(self._messages)
                if "times" in answer:
                    chosen = choose(np.array(answer["times"]))
                    self._socket.sendall(_line({"numbers": _plain(chosen)}))
                elif "shape" in answer:
                    frames = self._take(answer["shape"])
                    self._socket.sendall(_line({"taken": True}))
                    yield frames
                else:
                    ended = True
                    self.cpu_seconds += answer["seconds"]
        except TimeoutError as error:
            raise DecodeError("hung", f"no answer within {self._timeout:g} s") from error
        except (OSError, EOFError) as error:
            raise DecodeError(
                "crashed", f"the decoder's process ended: {self._ending()}"
            ) from error
        finally:
            if not ended:  # also if `choose` raised, or nobody wants the rest
                self.close()
        if "defect" in answer:
            raise RuntimeError(f"vmm made a mistake in decoding:\n{answer['defect']}")
        if "errno" in answer:
            raise OSError(answer["errno"], answer["detail"])
        if "reason" in answer:
            raise DecodeError(answer["reason"], answer["detail"])

    def _take(self, shape: list[int]) -> np.ndarray:
        self._frames.seek(0)
        return np.fromfile(self._frames, np.uint8, math.prod(shape)).reshape(shape)

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(self._timeout)
        self._messages = self._socket.makefile("rb")
        self._frames = _nameless_file()
        descriptors = (theirs.fileno(), self._frames.fileno())
        self._child = subprocess.Popen(
            [sys.executable, "-c", self._program, *map(str, descriptors)],
            pass_fds=descriptors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # signals that stop a run go to the parent only
        )
        theirs.close()
        self._socket.settimeout(max(self._timeout, TIMEOUT_S))
        try:
            _read(self._messages)  # it is ready
        except (OSError, EOFError) as error:
            ending = self._ending()
            self.close()
            raise RuntimeError(
                f"the process that decodes did not start: {ending}; stderr says why"
            ) from error
        self._socket.settimeout(self._timeout)

    def _ending(self) -> str:
        assert self._child is not None
        try:
            code = self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed the connection"
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _nameless_file() -> FileIO:
    """Open a file of which nothing is left whatever ends the processes; in memory if possible."""
    if hasattr(os, "memfd_create"):  # /dev/shm would do, but containers keep it small
        return FileIO(os.memfd_create("frames"), "r+b")
    with tempfile.TemporaryFile(buffering=0) as file:
        return FileIO(os.dup(file.fileno()), "r+b")


@lru_cache(maxsize=1)
def _decoder_of(process: int) -> IsolatedDecoder:
    return IsolatedDecoder()


def own_decoder() -> IsolatedDecoder:
    """Return the isolated decoder of this process; a forked worker must not use its parent's."""
    return _decoder_of(os.getpid())


def serve(
    video: Callable[..., np.ndarray] = decode_video,
    image: Callable[[bytes], np.ndarray] = decode_image,
    parts: Callable[..., Iterator[np.ndarray]] = decode_parts,
) -> None:
    """Decode what the parent sends until it hangs up; the child's whole life.

    Args:
        video: Decodes videos, to (T, H, W, 3) uint8.
        image: Decodes images, to (1, H, W, 3) uint8.
        parts: Decodes parts of videos, to (T, H, W, 3) uint8 each.
    """
    connection = socket.socket(fileno=int(sys.argv[1]))
    messages = connection.makefile("rb")
    frames = FileIO(int(sys.argv[2]), "r+b")

    def choose(times: np.ndarray) -> Any:
        connection.sendall(_line({"times": times.tolist()}))
        return _read(messages)["numbers"]

    def decoded(request: dict[str, Any], data: bytes) -> Iterator[np.ndarray]:
        if request["media"] == "image":
            yield image(data)
        elif request["media"] == "video":
            yield video(data, choose, decoder=request["decoder"], **request["limits"])
        else:
            yield from parts(Path(request["path"]) if "path" in request else data, choose)

    def answer(request: dict[str, Any], data: bytes) -> dict[str, Any]:
        try:
            for pixels in decoded(request, data):
                frames.seek(0)
                np.ascontiguousarray(pixels).tofile(frames)
                connection.sendall(_line({"shape": pixels.shape}))
                _read(messages)  # they have been taken
        except DecodeError as error:
            return {"reason": error.reason, "detail": error.detail}
        except (EOFError, ConnectionError):
            raise  # the parent ended
        except OSError as error:
            return {"errno": error.errno, "detail": error.strerror}
        except Exception:  # noqa: BLE001  # not the file's fault: the parent stops and shows it
            return {"defect": traceback.format_exc()}
        return {"ended": True}

    try:
        connection.sendall(_line({"ready": True}))
        told = 0.0
        while True:
            request = _read(messages)
            data = messages.read(request["size"])
            ending, now = answer(request, data), time.process_time()
            connection.sendall(_line({**ending, "seconds": now - told}))
            told = now
    except (EOFError, ConnectionError):
        return  # the parent ended


def _plain(chosen: Sequence[Any]) -> list[Any]:
    """Turn numbers, or lists of them, into what JSON knows."""
    return [int(x) if np.ndim(x) == 0 else _plain(x) for x in chosen]


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _read(messages: BinaryIO) -> dict[str, Any]:
    line = messages.readline()
    if not line.endswith(b"\n"):
        raise EOFError("the other side hung up")
    message: dict[str, Any] = json.loads(line)
    return message
