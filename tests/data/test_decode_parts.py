import io
import subprocess
import sys

import av
import numpy as np
import pytest

import vmm.data.decode as module
from tests.data import videos
from vmm.data.decode import DecodeError, decode_parts, decode_video, read_film
from vmm.data.times import end_of


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


PEAK = """
import re, sys
from pathlib import Path
from vmm.data.decode import decode_parts, read_film
from vmm.data.times import shown_at_rate
path, what = Path(sys.argv[1]), sys.argv[2]
if what == "every second frame":
    choose = lambda t: [[i, min(i + 3, len(t) - 1)] for i in range(0, len(t), 2)]
    count = sum(1 for _ in decode_parts(path, choose))
else:
    film = read_film(path, lambda t: shown_at_rate(t, 1.0))
    count = sum(map(len, film.portions))
status = Path("/proc/self/status").read_text()
print(count, int(re.search(r"VmHWM:\\s*(\\d+)", status)[1]) // 1024)
"""


def peak_of(path, what):
    """Count what a process of its own reads, and its peak memory in MB."""
    out = subprocess.run(
        [sys.executable, "-c", PEAK, str(path), what], capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    return map(int, out.stdout.split())


@pytest.mark.parametrize(
    ("options", "size", "short", "long"),
    [
        ({"codec": "mjpeg", "pix_fmt": "yuvj420p", "qmin": "1", "qmax": "1"}, (480, 640), 6, 72),
        # One key frame: all of it is one run of packets.
        ({"preset": "ultrafast", "crf": "3", "g": "99999"}, (120, 160), 60, 1080),
    ],
)
def test_a_long_video_is_not_held_in_memory(tmp_path, options, size, short, long):
    """20 MB of film may not take 11 MB more than a short one."""
    pictures = np.random.default_rng(0).integers(0, 256, (6, *size, 3), np.uint8)
    peaks = []
    for frames in (short, long):
        path = tmp_path / f"{frames}.mkv"
        shown = np.concatenate([pictures] * (frames // 6))
        path.write_bytes(videos.encode_video(shown, container="matroska", **options))
        count, peak = peak_of(path, "every second frame")
        assert count == frames // 2
        peaks.append(peak)
    assert path.stat().st_size > 20e6
    assert peaks[1] - peaks[0] < 11, peaks


def repeated(path, data, times, seconds):
    """Write a film whose packets are those of a short one again and again."""
    with av.open(io.BytesIO(data)) as source, av.open(str(path), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        packets = [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in source.demux(stream) if p.size]
        step = round(seconds / float(stream.time_base))
        for turn in range(times):
            for content, pts, dts, is_keyframe in packets:
                packet = av.Packet(content)
                packet.stream, packet.time_base = copy, stream.time_base
                packet.pts, packet.dts = pts + turn * step, dts + turn * step
                packet.is_keyframe = is_keyframe
                output.mux(packet)


def test_half_an_hour_at_60_frames_per_second_is_read_in_little_memory(tmp_path):
    """108,000 frames; three hours may take 200 MB more than ten minutes."""
    ten = videos.moving_picture(600, 16, 16)
    data = videos.encode_video(ten, rate=60, container="matroska", preset="ultrafast", g="120")
    for name, turns in (("short", 3), ("long", 180)):
        repeated(tmp_path / f"{name}.mkv", data, turns, 10)
    peaks = []
    for name, seconds in (("short", 30), ("long", 1800)):
        count, peak = peak_of(tmp_path / f"{name}.mkv", "a frame per second")
        assert count == seconds
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 200 * (1800 - 30) / (3 * 3600 - 600), peaks
    film = read_film(tmp_path / "long.mkv", lambda times: [7, 60, len(times) // 2 + 60])
    with pytest.raises(DecodeError, match="more than 100000 frames"):
        decode_video((tmp_path / "long.mkv").read_bytes(), lambda times: [0])
    (frames,) = film.portions
    assert film.duration == pytest.approx(1800, abs=0.1)
    np.testing.assert_allclose(film.seconds, [7 / 60, 1, 901], atol=1e-3)
    expected = decode_video(data, lambda times: [7, 60])
    assert np.array_equal(frames, expected[[0, 1, 1]])


@pytest.mark.parametrize("kind", ["h264", "vp8", "h264 ts", "mpeg2 ts, sound", "gif"])
def test_a_film_is_read_a_few_frames_at_a_time(kind, tmp_path):
    content = videos.make(kind)
    (tmp_path / "film").write_bytes(content)
    seen = []
    everything = decode_video(content, lambda t: (seen.append(t), range(len(t)))[1])
    chosen = [0, 3, 3, 8, 9, 20, len(everything) - 1]
    for video in (content, tmp_path / "film"):
        film = read_film(video, lambda times: chosen, portion=3)
        portions = list(film.portions)
        assert [len(part) for part in portions] == [3, 3, 1]
        assert np.array_equal(np.concatenate(portions), everything[chosen])
        np.testing.assert_allclose(film.seconds, seen[-1][chosen])
        assert film.duration == pytest.approx(end_of(seen[-1]))


def test_a_film_of_other_frames_than_it_seemed_keeps_its_moments(monkeypatch):
    """The packets promise 30 frames; where the decoder shows 15, those on the screen are taken."""
    data = videos.make("h264")
    monkeypatch.setattr(module, "_stream_groups", lambda *arguments: iter(()))
    times = module._times
    monkeypatch.setattr(module, "_times", lambda *arguments: times(*arguments)[::2])
    film = read_film(data, lambda t: [0, 4, 9, 20, 29])
    np.testing.assert_allclose(film.seconds, np.array([0, 4, 9, 20, 29]) / 25)
    (frames,) = film.portions
    numbers = [0, 2, 4, 10, 14]
    assert np.array_equal(frames, decode_video(data, lambda t: numbers))


def test_what_breaks_a_film_on_the_way_is_said_there():
    data = videos.encode_video(videos.moving_picture(120), g="10", bf="0")
    broken = bytearray(data)
    middle = len(data) // 2
    broken[middle : middle + 2000] = b"\xff" * 2000
    film = read_film(bytes(broken), lambda times: range(len(times)), portion=5)
    assert len(film.seconds) == 120
    read = 0
    with pytest.raises(DecodeError, match="unreadable"):
        for frames in film.portions:
            read += len(frames)
    assert 20 < read < 120


def test_empty_long_and_missing_videos(tmp_path):
    with pytest.raises(DecodeError, match="empty"):
        next(decode_parts(b"", overlapping))
    with pytest.raises(DecodeError, match="too long: more than 10 frames"):
        next(decode_parts(videos.make("h264"), overlapping, max_frames=10))
    with pytest.raises(FileNotFoundError):
        next(decode_parts(tmp_path / "no.mp4", overlapping))
