import io

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from tests.data import videos
from vmm.data.decode import decode_video
from vmm.data.packets import TooManyFrames, needed_packets, read_timeline, unit_headers
from vmm.data.packets import demux as all_packets


def demux(data):
    """Return codec, configuration record and packets."""
    container = av.open(io.BytesIO(data))
    stream = container.streams.video[0]
    context = stream.codec_context
    return stream, context.name, context.extradata, read_timeline(container, stream, 1000).packets


def left_out(data):
    """Numbers of the packets that are not sent from the last key frame on, for the last frame."""
    _, codec, record, packets = demux(data)
    (run,) = needed_packets(packets, {max(p.pts for p in packets)}, codec, record)
    sent = {p.pts for p in run}
    numbers = {p.pts: i for i, p in enumerate(packets)}
    return [
        i for i in range(numbers[run[0].pts], numbers[run[-1].pts]) if packets[i].pts not in sent
    ]


def decode_without(data, missing):
    stream, _, _, packets = demux(data)
    sent = [p for i, p in enumerate(packets) if i not in missing]
    return {
        f.pts: f.to_ndarray(format="rgb24")
        for p in [*sent, None]
        for f in stream.codec_context.decode(p)
    }


LONG = [
    videos.x264(keyint=250, bframes=3, b_adapt=0, scenecut=0),
    videos.x264(keyint=250, bframes=2, b_adapt=0, scenecut=0, b_pyramid="none"),
    videos.x265(keyint=250, bframes=3, b_adapt=0, scenecut=0),
    videos.x265(keyint=250, bframes=7, temporal_layers=3),
]


@pytest.mark.parametrize("options", LONG)
def test_no_other_picture_needs_those_that_are_left_out(options):
    data = videos.encode_video(videos.moving_picture(30), **options)
    everything = decode_without(data, set())
    assert len(everything) == 30
    numbers = left_out(data)
    assert len(numbers) >= 10
    for missing in (set(numbers), {numbers[0]}, {numbers[-1]}):
        frames = decode_without(data, missing)
        assert len(frames) == 30 - len(missing)
        assert all(np.array_equal(frames[time], everything[time]) for time in frames)


def test_of_temporal_layers_only_the_highest_is_left_out():
    data = videos.make("hevc temporal layers")
    _, _, record, packets = demux(data)
    units = [unit_headers(bytes(p), (record[21] & 3) + 1) for p in packets]
    layers = [max((h[1] & 7 for h in found if h[0] >> 1 < 32), default=0) for found in units]
    assert len(set(layers)) == 3
    assert {layers[i] for i in left_out(data)} == {max(layers)}


@pytest.mark.parametrize(("kind", "name"), [("h264 three slices", "h264"), ("hevc", "hevc")])
def test_start_codes_separate_the_same_units_as_lengths(kind, name):
    stream, _, record, packets = demux(videos.make(kind))
    size = (record[4 if name == "h264" else 21] & 3) + 1
    lengths = [unit_headers(bytes(p), size) for p in packets]
    convert = BitStreamFilterContext(f"{name}_mp4toannexb", stream)
    codes = [unit_headers(bytes(q), 0) for p in packets for q in convert.filter(p)]
    assert len(codes) == len(lengths)
    # The filter puts parameter sets before key frames.
    assert all(
        found[len(found) - len(expected) :] == expected or set(expected) <= set(found)
        for found, expected in zip(codes, lengths, strict=True)
    )
    assert codes[1] == lengths[1]


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0\2\x01", b"\0\0\0\1\x01\0", b"\0\0\0\0\0\0\0\2\x01\0", b"\xff" * 20]
)
def test_lengths_that_do_not_add_up_say_nothing(data):
    assert unit_headers(data, 4) == []


def test_lengths_may_have_two_bytes():
    _, codec, record, packets = demux(videos.make("h264 one long group"))
    shorter = []
    for packet in packets:
        data, position, units = bytes(packet), 0, b""
        while position < len(data):
            end = position + 4 + int.from_bytes(data[position : position + 4], "big")
            units += data[position + 2 : end]
            position = end
        shorter.append(av.Packet(units))
        shorter[-1].pts, shorter[-1].is_keyframe = packet.pts, packet.is_keyframe
    wanted = {max(p.pts for p in packets)}
    two = record[:4] + bytes([record[4] & 252 | 1]) + record[5:]
    (expected,) = needed_packets(packets, wanted, codec, record)
    (run,) = needed_packets(shorter, wanted, codec, two)
    assert [p.pts for p in run] == [p.pts for p in expected]
    assert len(run) < len(packets) - 3


def test_open_groups_are_decoded_from_the_key_frame_before():
    _, codec, record, packets = demux(videos.make("h264 open groups"))
    keys = [i for i, p in enumerate(packets) if p.is_keyframe]
    leading = [p.pts for i, p in enumerate(packets) if i > keys[1] and p.pts < packets[keys[1]].pts]
    (run,) = needed_packets(packets, {leading[0]}, codec, record)
    assert run[0].pts == packets[0].pts and packets[keys[1]].pts in {p.pts for p in run}


def test_frames_that_an_edit_list_hides_are_not_shown():
    container = av.open(io.BytesIO(videos.make("h264 edit list hides frames")))
    packets, shown = read_timeline(container, container.streams.video[0], 1000)
    assert len(packets) == 30 and len(shown) == 20 and shown[0] == 0
    assert np.all(np.diff(shown) > 0)


def test_the_limit_counts_packets():
    container = av.open(io.BytesIO(videos.make("h264")))
    with pytest.raises(TooManyFrames, match="more than 29"):
        read_timeline(container, container.streams.video[0], 29)


class Late:
    """A container in which PyAV looks for a stream that it does not know."""

    def __init__(self, packets, lost_after):
        self.packets, self.lost_after = packets, lost_after

    def demux(self, stream):
        yield from self.packets[: self.lost_after]
        raise IndexError("list index out of range")


def test_a_stream_that_turns_up_late_costs_no_packet_of_the_others():
    container = av.open(io.BytesIO(videos.make("h264 flv")))
    stream = container.streams.video[0]
    packets = list(container.demux(stream))
    assert [p.size == 0 for p in packets] == [False] * 30 + [True]
    assert list(all_packets(Late(packets, 31), stream)) == packets
    with pytest.raises(IndexError):  # not what PyAV does: nobody knows what is lost
        list(all_packets(Late(packets, 30), stream))


def test_a_clock_that_jumps_back_is_not_believed():
    """Two recordings one behind the other: sorted by their times, their frames would mix."""
    data = b"".join(
        videos.encode_video(
            videos.moving_picture(10, seed=rate), container="mpegts", g="5", rate=rate, first=first
        )
        for rate, first in ((25, 10), (23, 2))
    )
    with av.open(io.BytesIO(data)) as container:
        shown = list(container.decode(video=0))
    times = [frame.pts for frame in shown]
    assert len(set(times)) == len(times) == 20 and times != sorted(times)
    with av.open(io.BytesIO(data)) as container:
        assert read_timeline(container, container.streams.video[0], 1000).shown is None
    frames = decode_video(data, lambda times: range(len(times)))
    assert np.array_equal(frames, [frame.to_ndarray(format="rgb24") for frame in shown])
