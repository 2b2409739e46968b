"""Decoding eight frames of a clip of ten seconds, against other decoders; layouts; the loader.

``python -m benchmarks.decode [--short]``. Every decoder gets the bytes of the file and gives RGB
frames of full size, on one thread; all run in turns in one process.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import itertools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import av
import numpy as np

from benchmarks import common, decode_clips, report
from benchmarks.decode_loader import FRAMES, measure_loader
from benchmarks.decode_shares import measure_sending, measure_shares
from vmm.data.decode import decode_video
from vmm.data.packets import needed_packets, read_timeline
from vmm.data.transforms import ClipSettings
from vmm.ops.tuning.cpu_memory import keep_freed_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS, FULL, FLOOR = "vmm", "full decode", "those packets, decoded only"
DECORD, TORCHCODEC = "decord2", "torchcodec"
JPEGS_PER_SECOND = 3
SMALL = (256, 454)

TEXT = f"""Eight frames, from the middles of eight equal parts of a clip of ten seconds at 30 frames
per second; H.264, two B-frames. Milliseconds of CPU time, the fastest of several runs. `{FULL}`
decodes everything up to the last frame wanted. `{FLOOR}` sends the packets that vmm
sends to an open decoder and drops the frames: no opening, no colours. vmm's frames were compared
with those of the full decode first; the notes say where another decoder's differ. Layouts: the same
film as {JPEGS_PER_SECOND} JPEG pictures per second of 454x256. The loader reads, decodes,
transforms and batches clips of 224x224 in two workers, or in the one process that there is, in
turns. Rates are wall-clock, the best of several rounds, and say little where other programs run;
CPU time per clip is that of all processes, without their start: of `one process` it is what the
same work takes there, and `efficiency` is how many workers' worth of it each worker does. Decoding
is in it. Shares: of the CPU time of a training clip of 224x224 in a worker: reading the tar is left
out; the last step copies its pixels into the batch and into shared memory, as they go to the
process that trains. They go as bytes; what would go as normalised numbers is measured beside it.
Straight to the size: colours and resizing of a clip by vmm's exact path, or in one step by FFmpeg
(bicubic), in ms, and how far pixels (0 to 255) differ."""


class Sizes(NamedTuple):
    """How much is measured.

    Args:
        heights: Of the clips; 16:9.
        gops: Frames from key frame to key frame.
        seconds: Length of a clip.
        rounds: See ``common.Race``.
        batches: Of the loader, timed, in each round.
    """

    heights: tuple[int, ...]
    gops: tuple[int, ...]
    seconds: int
    rounds: int
    batches: int


SHORT = Sizes((360,), (30,), 10, 2, 4)
LONG = Sizes((360, 720), (30, 250), 10, 9, 8)


def middles(times: Sequence[float] | np.ndarray) -> list[int]:
    """The middles of eight equal parts."""
    return [(2 * i + 1) * len(times) // (2 * FRAMES) for i in range(FRAMES)]


def ours(data: bytes) -> np.ndarray:
    """Decode with vmm."""
    return decode_video(data, middles)


def full_decode(data: bytes) -> np.ndarray:
    """Decode all up to the last frame wanted."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        wanted = middles(range(stream.frames))
        shown = itertools.islice(container.decode(stream), wanted[-1] + 1)
        return np.stack([f.to_ndarray(format="rgb24") for i, f in enumerate(shown) if i in wanted])


def floor(data: bytes) -> Callable[[], None]:
    """Return a call that decodes the packets that are needed, and nothing else."""
    container = av.open(io.BytesIO(data))
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    packets, shown = read_timeline(container, stream, 10**6)
    assert shown is not None
    decoder = stream.codec_context
    wanted = {shown[i] for i in middles(shown)}
    runs = list(needed_packets(packets, wanted, decoder.name, decoder.extradata))

    def run() -> None:
        for packet in itertools.chain.from_iterable((*run, None) for run in runs):
            decoder.decode(packet)
            if packet is None:
                decoder.flush_buffers()

    run.keep = container  # type: ignore[attr-defined]  # closing it would close the decoder
    return run


def peers() -> tuple[dict[str, Callable[[bytes], np.ndarray]], list[str]]:
    """Return other decoders that run here, and notes on those that do not."""
    found: dict[str, Callable[[bytes], np.ndarray]] = {}
    notes = []
    if importlib.util.find_spec("decord") is None:
        notes.append("decord2 is not installed: it was not measured")
    else:
        import decord

        def with_decord(data: bytes) -> np.ndarray:
            reader = decord.VideoReader(io.BytesIO(data), num_threads=1)
            frames: np.ndarray = reader.get_batch(middles(range(len(reader)))).asnumpy()
            return frames

        found[DECORD] = with_decord
    try:
        from torchcodec.decoders import VideoDecoder
    except ImportError:
        notes.append("torchcodec is not installed: it was not measured")
        return found, notes

    def with_torchcodec(data: bytes, mode: Any) -> np.ndarray:
        reader = VideoDecoder(data, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode=mode)
        frames: np.ndarray = reader.get_frames_at(middles(range(len(reader)))).data.numpy()
        return frames

    for mode in ("exact", "approximate"):
        found[f"{TORCHCODEC}, {mode}"] = lambda data, mode=mode: with_torchcodec(data, mode)
    return found, notes


def measure_decoders(sizes: Sizes) -> tuple[list[dict[str, Any]], list[str], dict[str, bytes]]:
    """Time all decoders on all clips; also return the files."""
    others, notes = peers()
    rows: list[dict[str, Any]] = []
    files = {}
    cases = list(itertools.product(sizes.heights, sizes.gops))
    for height, gop in report.progress(cases, "decoders"):
        name = f"{height}p, GOP {gop}"
        frames = decode_clips.film(height, height * 16 // 9, sizes.seconds * decode_clips.RATE)
        data = files[name] = decode_clips.encode_mp4(frames, gop)
        expected = full_decode(data)
        running: dict[str, Callable[[], object]] = {
            OURS: lambda data=data: ours(data),
            FULL: lambda data=data: full_decode(data),
            FLOOR: floor(data),
        }
        assert np.array_equal(ours(data), expected)
        for peer, call in others.items():
            try:
                same = np.array_equal(call(data), expected)
            except RuntimeError as error:
                notes.append(f"{peer} was not measured at {name}: {str(error).splitlines()[0]}")
                continue
            if not same:
                notes.append(f"{peer} gives other pixels at {name}")
            running[peer] = lambda call=call, data=data: call(data)
        times = common.Race(sizes.rounds, 60.0).run(1, running)
        for decoder, timing in times.items():
            rows.append(
                {
                    "clip": name,
                    "decoder": decoder,
                    "ms": 1e3 * timing.fastest,
                    "to vmm": timing.fastest / times[OURS].fastest,
                }
            )
    return rows, notes, files


def measure_layouts(
    sizes: Sizes, films: dict[str, bytes]
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Time loading the same film as it was, made smaller, and as JPEG pictures; also the files."""
    count = sizes.seconds * decode_clips.RATE
    step = decode_clips.RATE // JPEGS_PER_SECOND
    small = list(decode_clips.film(*SMALL, count))
    jpegs = decode_clips.encode_jpegs(small[step // 2 :: step], JPEGS_PER_SECOND)
    files = {
        **{f"mp4, {name}": data for name, data in films.items()},
        **{f"mp4, 256p, GOP {gop}": decode_clips.encode_mp4(small, gop) for gop in sizes.gops},
        "JPEG pictures, 256p": jpegs,
    }
    calls = {name: lambda data=data: ours(data) for name, data in files.items()}
    times = common.Race(sizes.rounds, 60.0).run(1, calls)
    fastest = min(timing.fastest for timing in times.values())
    rows = [
        {
            "layout": name,
            "KiB": len(data) / 1024,
            "ms": 1e3 * times[name].fastest,
            "to JPEG": times[name].fastest / fastest,
        }
        for name, data in files.items()
    ]
    return rows, files


def bars(
    rows: list[dict[str, Any]], layouts: list[dict[str, Any]], loader: list[dict[str, Any]]
) -> list[report.Bar]:
    """Return the promises, and what became of them."""
    found = []
    for row in rows:
        name, clip, ratio = row["decoder"], row["clip"], row["to vmm"]
        if name == DECORD:
            found.append(report.Bar(f"{name} : vmm, {clip}", 1.1, ratio))
        if name.startswith(TORCHCODEC):
            found.append(report.Bar(f"{name} : vmm, {clip}", 1.2, ratio))
        if name == FLOOR:
            found.append(report.Bar(f"vmm : {name}, {clip}", 1.15, 1 / ratio, at_most=True))
    found += [
        report.Bar(f"mp4, {clip} : JPEG pictures", 20.0, row["to JPEG"])
        for clip in dict.fromkeys(row["clip"] for row in rows)  # as people have them, not shrunk
        for row in layouts
        if row["layout"] == f"mp4, {clip}"
    ]
    for row in loader:
        what = f"loader with {row['workers']} workers : as many times one process, {row['clip']}"
        found.append(report.Bar(what, 0.9, row["efficiency"]))
    return found


def draw(rows: list[dict[str, Any]], layouts: list[dict[str, Any]]) -> Figure:
    """Draw the decoders' times per clip, and the layouts'."""
    figure, axes = report.new_figure(2)
    left, right = axes[0]
    clips = list(dict.fromkeys(row["clip"] for row in rows))
    decoders = list(dict.fromkeys(row["decoder"] for row in rows))
    high = 0.8 / len(decoders)
    for place, decoder in enumerate(decoders):
        chosen = {row["clip"]: row["ms"] for row in rows if row["decoder"] == decoder}
        ys = [i + place * high for i, clip in enumerate(clips) if clip in chosen]
        left.barh(ys, list(chosen.values()), high, label=decoder)
    left.set_yticks([i + 0.4 - high / 2 for i in range(len(clips))], labels=clips)
    left.set(title="Eight frames of ten seconds", xlabel="CPU time, ms")
    names = [row["layout"] for row in layouts]
    right.barh(names, [row["ms"] for row in layouts])
    right.set(title="Layouts of the same film", xlabel="CPU time, ms", xscale="log", xlim=(1, None))
    for axis in (left, right):
        axis.invert_yaxis()
        axis.grid(visible=True, axis="x", alpha=0.3)
    left.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    return figure


def main() -> None:
    """Measure, and write the three files."""
    options = report.options(
        "benchmarks.decode", __doc__, "360p with a key frame a second only, fewer runs"
    )
    keep_freed_memory()  # as vmm's commands do
    sizes = SHORT if options.short else LONG
    rows, notes, files = measure_decoders(sizes)
    layouts, files = measure_layouts(sizes, files)
    clip = ClipSettings(FRAMES, 224)
    names = list(files)
    loader = [
        measure_loader(name, files[name], clip, sizes.rounds, sizes.batches)
        for name in (names[0], names[-1])
    ]
    pairs = [
        measure_shares(name, data, middles, clip, sizes.rounds) for name, data in files.items()
    ]
    shares, ways = ([pair[i] for pair in pairs] for i in (0, 1))
    sent = measure_sending(clip, sizes.rounds)
    tables = {
        heading: report.table(
            list(found[0]),
            [[x if isinstance(x, str) else report.number(x) for x in r.values()] for r in found],
        )
        for heading, found in {
            "Decoders": rows,
            "Layouts": layouts,
            "Loader": loader,
            "Shares": shares,
            "Sent to the process that trains": sent,
            "Straight to the size": ways,
        }.items()
    }
    packages = ("av", "decord2", "torchcodec")
    settings = sizes._asdict() | {"cores": os.cpu_count()}
    settings |= {name: importlib.metadata.version(name) for name in packages if _installed(name)}
    found = report.Report(
        "decode",
        "Decoding and loading clips on one CPU thread",
        TEXT,
        settings,
        [*rows, *layouts, *loader, *shares, *sent, *ways],
        tables,
        bars(rows, layouts, loader),
        notes,
    )
    page = found.write(options, draw(rows, layouts))
    print(page.read_text("utf-8"))


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
