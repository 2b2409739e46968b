"""Reading long films from their files, beside a plain demux and decode of all frames.

A part of ``benchmarks.long_video``. A film is ten seconds of ``decode_clips.film`` again and again.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import torch

from benchmarks import common, decode_clips, report
from vmm.data.decode import read_film
from vmm.data.times import shown_at_rate
from vmm.data.transforms import ClipSettings, eval_transform
from vmm.models.long_video import encode_long_video
from vmm.models.videomamba import VideoMamba

PLAIN, READ, ENCODED = "PyAV, everything", "vmm, a frame per second", "vmm, file to features"
GIB = 2**30
_GOP = 60
_PART_S = 10

TEXT = f"""Films of {decode_clips.RATE} frames per second, H.264, a key frame every {_GOP} frames,
one thread. `{PLAIN}` demultiplexes and decodes all frames with PyAV and drops them: no colours.
`{READ}` is `read_film`, with colours. `{ENCODED}` goes on to the features of all these frames.
Milliseconds are per frame of the film."""


def write_film(path: Path, seconds: int, height: int) -> None:
    """Write a film, whose packets are those of ten seconds repeated."""
    pictures = decode_clips.film(height, height * 16 // 9 // 2 * 2, _PART_S * decode_clips.RATE)
    part = decode_clips.encode_mp4(pictures, _GOP)
    with av.open(io.BytesIO(part)) as source, av.open(str(path), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        packets = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in source.demux(stream) if p.size]
        ticks = round(_PART_S / float(stream.time_base or 1))
        for turn in range(max(seconds // _PART_S, 1)):
            for content, pts, dts, is_keyframe in packets:
                packet = av.Packet(content)
                packet.stream, packet.time_base = copy, stream.time_base
                packet.pts, packet.dts = (pts or 0) + turn * ticks, (dts or 0) + turn * ticks
                packet.is_keyframe = is_keyframe
                output.mux(packet)


def plain(path: Path) -> int:
    """Decode everything and keep nothing; return the number of frames."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        return sum(1 for _ in container.decode(stream))


def read(path: Path) -> int:
    """Read a frame per second; return how many these are."""
    return sum(map(len, read_film(path, lambda times: shown_at_rate(times, 1.0)).portions))


def encoded(path: Path, encoder: VideoMamba, image_size: int) -> int:
    """Encode a frame per second; return how many these are."""
    film = read_film(path, lambda times: shown_at_rate(times, 1.0))
    clip = ClipSettings(8, image_size)
    pixels = (torch.from_numpy(frames).permute(0, 3, 1, 2) for frames in film.portions)
    portions = (eval_transform(part, clip).to(common.device()) for part in pixels)
    return len(encode_long_video(encoder, portions, len(film.seconds)).per_step)


def measure(
    lengths: tuple[int, ...], height: int, encoder: VideoMamba, image_size: int
) -> list[dict[str, Any]]:
    """Time all variants on films of some lengths in seconds; only the first one is encoded."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {seconds: Path(folder) / f"{seconds}.mkv" for seconds in lengths}
        for seconds, path in paths.items():
            write_film(path, seconds, height)
        # What the encoder leaves in memory must not count as the films'.
        cases: list[tuple[int, str, Callable[[Path], int]]] = [
            (seconds, name, call)
            for seconds in lengths
            for name, call in ((READ, read), (PLAIN, plain))
        ]
        cases.append((lengths[0], ENCODED, lambda path: encoded(path, encoder, image_size)))
        for seconds, name, call in report.progress(cases, "films"):
            row, count = once(partial(call, paths[seconds]))
            rows.append({"film": name, "length_s": seconds, "looked_at": count} | row)
    frames = {row["length_s"]: row["looked_at"] for row in rows if row["film"] == PLAIN}
    return [row | {"ms_per_frame": 1e3 * row["seconds"] / frames[row["length_s"]]} for row in rows]


def once(call: Callable[[], int]) -> tuple[dict[str, Any], int]:
    """Return CPU time and peak memory of a call, and what it gave."""
    counts: list[int] = []
    seconds: list[float] = []
    peak = common.peak_memory(lambda: seconds.append(common.elapsed(lambda: counts.append(call()))))
    row: dict[str, Any] = {"seconds": seconds[0]}
    return row | ({} if peak is None else {"peak_gib": peak / GIB}), counts[0]


def bars(rows: list[dict[str, Any]]) -> list[report.Bar]:
    """Return the promises, and what became of them."""
    of = {(row["film"], row["length_s"]): row for row in rows}
    lengths = sorted({length for _, length in of})
    longest = of[READ, lengths[-1]]
    ratio = longest["seconds"] / of[PLAIN, lengths[-1]]["seconds"]
    what = f"film of {lengths[-1]} s: {READ} : {PLAIN}"
    found = [report.Bar(what, 1.1, ratio, at_most=True)]
    if "peak_gib" in longest:
        more = longest["peak_gib"] - of[READ, lengths[0]]["peak_gib"]
        what = f"film of {lengths[-1]} s: memory beyond one of {lengths[0]} s, GiB"
        found.append(report.Bar(what, 0.2, more, at_most=True))
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return all rows as a table."""
    columns = ["length_s", "film", "looked_at", "seconds", "ms_per_frame", "peak_gib"]

    def cell(value: Any) -> str:
        return report.number(value) if isinstance(value, float | None) else str(value)

    return report.table(columns, [[cell(row.get(key)) for key in columns] for row in rows])
