import subprocess
import sys

import numpy as np
import pytest

import vmm.data.decode as module
from tests.data import videos
from vmm.data.decode import DecodeError, decode_parts, decode_video


def overlapping(times, length=5, step=3):
    """Parts of every second frame, each of them beginning in the one before; some repeat frames."""
    starts = range(0, max(len(times) - length, 0) + 1, step)
    return [
        [*range(s, min(s + length, len(times)), 2), min(s + length, len(times)) - 1] for s in starts
    ]


def assert_exact(video, content):
    everything = decode_video(content, lambda t: list(range(len(t))))
    seen = []
    parts = list(decode_parts(video, lambda t: (seen.append(t), overlapping(t))[1]))
    wanted = overlapping(everything)
    assert len(parts) == len(wanted)
    for frames, numbers in zip(parts, wanted, strict=True):
        assert np.array_equal(frames, everything[numbers])
    times = []
    decode_video(content, lambda t: (times.append(t), [0])[1])
    assert np.array_equal(seen[-1], times[-1])


@pytest.mark.parametrize("kind", videos.KINDS)
def test_parts_are_those_of_a_full_decode(kind, monkeypatch, tmp_path):
    if videos.KINDS[kind].groups:  # the way out must not be needed
        monkeypatch.setattr(module, "_stream_everything", None)
    path = tmp_path / "video"
    path.write_bytes(videos.make(kind))
    assert_exact(path, videos.make(kind))
    assert_exact(videos.make(kind), videos.make(kind))


def test_each_frame_is_decoded_and_converted_once(monkeypatch):
    converted = []
    convert = module.Converter.__call__
    monkeypatch.setattr(
        module.Converter, "__call__", lambda s, f: (converted.append(f.pts), convert(s, f))[1]
    )
    list(decode_parts(videos.make("h264"), overlapping))
    assert len(converted) == len(set(converted))


def test_the_parts_before_a_damage_are_there():
    data = videos.encode_video(videos.moving_picture(120), g="10", bf="0")
    broken = bytearray(data)
    begin = data.index(b"mdat") + 4
    middle = begin + (len(data) - begin) // 2
    broken[middle : middle + 2000] = b"\xff" * 2000
    whole = list(decode_parts(data, overlapping))
    parts = []
    with pytest.raises(DecodeError, match="unreadable"):
        for frames in decode_parts(bytes(broken), overlapping):
            parts.append(frames)
    assert 5 < len(parts) < len(whole)
    for frames, expected in zip(parts[:5], whole, strict=False):
        assert np.array_equal(frames, expected)


def test_a_long_video_is_not_held_in_memory(tmp_path):
    """50 MB of film may not take 20 MB more than a short one."""
    picture = np.random.default_rng(0).integers(0, 256, (3, 480, 640, 3), np.uint8)
    code = (
        "import re, sys; from pathlib import Path; from vmm.data.decode import decode_parts\n"
        "choose = lambda t: [[i, min(i + 3, len(t) - 1)] for i in range(0, len(t), 2)]\n"
        "n = sum(1 for _ in decode_parts(Path(sys.argv[1]), choose))\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(n, int(re.search(r'VmHWM:\\s*(\\d+)', status)[1]) // 1024)"
    )
    peaks = []
    for name, repeats in (("short.mkv", 2), ("long.mkv", 50)):
        path = tmp_path / name
        frames = np.concatenate([picture] * repeats)
        path.write_bytes(
            videos.encode_video(
                frames, codec="mjpeg", container="matroska", pix_fmt="yuvj420p", qmin="1", qmax="1"
            )
        )
        out = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True
        )
        count, peak = map(int, out.stdout.split())
        assert count == len(frames) // 2, out.stderr
        peaks.append(peak)
    assert path.stat().st_size > 45e6
    assert peaks[1] - peaks[0] < 20, peaks


def test_empty_long_and_missing_videos(tmp_path):
    with pytest.raises(DecodeError, match="empty"):
        next(decode_parts(b"", overlapping))
    with pytest.raises(DecodeError, match="too long: more than 10 frames"):
        next(decode_parts(videos.make("h264"), overlapping, max_frames=10))
    with pytest.raises(FileNotFoundError):
        next(decode_parts(tmp_path / "no.mp4", overlapping))
