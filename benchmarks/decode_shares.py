"""Where the time of a clip goes, from file to network input, and what a short cut would save."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import av
import numpy as np
import torch

from benchmarks import common
from vmm.data.containers import Converter, open_video
from vmm.data.packets import needed_packets, read_timeline
from vmm.data.transforms import ClipSettings, fit_frames, normalise, train_transform

Choose = Callable[[np.ndarray], Sequence[int]]


def measure_shares(
    name: str, data: bytes, choose: Choose, settings: ClipSettings, rounds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time the steps of loading a clip one by one, and resizing by FFmpeg in the place of vmm.

    Args:
        name: Of the clip.
        data: Its file.
        choose: The frames.
        settings: Of the clip.
        rounds: See ``common.Race``.

    Returns:
        Milliseconds of each step, in the order in which they are taken; and milliseconds of colours
        and resizing in the two ways, with the differences between their pixels, of 255.
    """
    with open_video(data) as (container, stream):
        packets, shown = read_timeline(container, stream, 10**6)
        assert shown is not None
        decoder = stream.codec_context
        wanted = {int(shown[i]) for i in choose(shown)}
        runs = list(needed_packets(packets, wanted, decoder.name, decoder.extradata))

        def decode() -> list[av.VideoFrame]:
            found = []
            for run in runs:
                for packet in (*run, None):
                    found += [f for f in decoder.decode(packet) if f.pts in wanted]
                decoder.flush_buffers()
            return found

        shown_frames = decode()
        side = settings.image_size
        convert, shrink = Converter(stream), Converter(stream, lambda width, height: (side, side))
        frames = np.stack([convert(frame) for frame in shown_frames])
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
        generator = torch.Generator().manual_seed(0)
        clip = train_transform(pixels, settings, generator, [])

        def exactly() -> torch.Tensor:
            colours = np.stack([convert(frame) for frame in shown_frames])
            return fit_frames(torch.from_numpy(colours).permute(0, 3, 1, 2), settings)

        def directly() -> torch.Tensor:
            small = np.stack([shrink(frame) for frame in shown_frames])
            return torch.from_numpy(small).permute(0, 3, 1, 2).float()

        def demux() -> None:
            with open_video(data) as opened:
                read_timeline(*opened, 10**6)

        times = common.Race(rounds, 60.0).run(
            1,
            {
                "opening, times": demux,
                "decoding": decode,
                "colours": lambda: np.stack([convert(frame) for frame in shown_frames]),
                "transforms": lambda: train_transform(pixels, settings, generator, []),
                "to shared memory": lambda: clip.clone().share_memory_(),
                "exactly": exactly,
                "directly": directly,
            },
        )
    ms = {what: 1e3 * timing.fastest for what, timing in times.items()}
    ways = {"clip": name, "colours, resizing": ms.pop("exactly"), "by FFmpeg": ms.pop("directly")}
    different = (exactly().float() - directly()).abs()
    ways |= {"mean difference": float(different.mean()), "largest": float(different.max())}
    total = sum(ms.values())
    shares = {f"{what}, %": 100 * spent / total for what, spent in ms.items()}
    return {"clip": name, "all, ms": total, **shares}, ways


def measure_sending(settings: ClipSettings, rounds: int) -> list[dict[str, Any]]:
    """Time what a clip takes from its pixels to shared memory, as bytes and as numbers.

    Args:
        settings: Of the clip.
        rounds: See ``common.Race``.
    """
    size = settings.image_size
    rows = torch.randint(256, (settings.num_frames, size, size, 3), dtype=torch.uint8)
    pixels = rows.permute(0, 3, 1, 2)  # as decoders put channels

    def as_numbers() -> torch.Tensor:
        return normalise(pixels, settings).clone().share_memory_()

    ways: dict[str, Callable[[], object]] = {
        "bytes": lambda: pixels.clone().share_memory_(),
        "float32, normalised before": as_numbers,
        "bytes, and normalised after": lambda: normalise(pixels.clone().share_memory_(), settings),
    }
    times = common.Race(rounds, 60.0).run(1, ways)
    return [{"sent as": way, "ms": 1e3 * timing.fastest} for way, timing in times.items()]
