"""Half a file must not look like a whole short one."""

import io

import av
import pytest

from tests.data import videos
from vmm.data import cut_off
from vmm.data.cut_off import is_cut_off
from vmm.data.decode import DecodeError, decode_video, read_film


def all_of(times):
    return range(len(times))


def web_video(path, frames=60, sound=None):
    """An MP4 that can be played while it comes, as those of the web."""
    data = videos.encode_video(videos.moving_picture(frames), rate=20, audio=sound)
    in_front = {"movflags": "faststart"}
    with (
        av.open(io.BytesIO(data)) as source,
        av.open(str(path), "w", format="mp4", options=in_front) as output,
    ):
        streams = {s.index: output.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    return path.read_bytes()


@pytest.mark.parametrize("kind", videos.KINDS)
def test_whole_files_are_whole(kind):
    assert not is_cut_off(videos.make(kind))


SAYING = ("mp4", "mov", "matroska", "webm", "avi")


@pytest.mark.parametrize("kind", [k for k, v in videos.KINDS.items()
                                  if v.settings.get("container", "mp4") in SAYING])  # fmt: skip
def test_a_part_of_a_file_is_told(kind):
    data = videos.make(kind)
    assert is_cut_off(data[: len(data) // 2]) and is_cut_off(data[:-200])


@pytest.mark.parametrize("sound", [None, "before"])
def test_half_a_download_is_no_short_clip(tmp_path, sound):
    data = web_video(tmp_path / "a.mp4", sound=sound)
    assert len(decode_video(data, all_of)) == 60
    half = data[: len(data) // 2]
    with av.open(io.BytesIO(half)) as file:
        assert 10 < sum(1 for _ in file.demux(video=0)) < 40  # FFmpeg says nothing
    with pytest.raises(DecodeError, match=r"cut off: the file says that it is longer.*get it"):
        decode_video(half, lambda times: [0])
    (tmp_path / "a.mp4").write_bytes(half)
    with pytest.raises(DecodeError, match="cut off"):
        read_film(tmp_path / "a.mp4", all_of)


def test_what_follows_or_is_reserved_but_not_used_is_no_loss(tmp_path, monkeypatch):
    data = web_video(tmp_path / "a.mp4")
    assert not is_cut_off(data + b"\x7f\xff\xff\xffjunk of somebody")
    place = data.index(b"mdat") - 4
    length = int.from_bytes(data[place : place + 4], "big") + 1_000_000
    reserved = data[:place] + length.to_bytes(4, "big") + data[place + 4 :]
    assert not is_cut_off(reserved) and len(decode_video(reserved, all_of)) == 60
    assert is_cut_off(reserved[:-2000])
    monkeypatch.setattr(cut_off, "_MOST_BOXES", 9)  # nobody reads on for ever to find what it needs
    assert is_cut_off(reserved)


def test_fragments_and_large_sizes(tmp_path):
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    data = videos.encode_video(videos.moving_picture(40), muxer=fragments, g="10")
    assert not is_cut_off(data) and is_cut_off(data[: len(data) * 2 // 3])
    whole = web_video(tmp_path / "a.mp4")
    place = whole.index(b"mdat") - 4
    head = (1).to_bytes(4, "big") + b"mdat" + (len(whole) - place + 8).to_bytes(8, "big")
    large = whole[:place] + head + whole[place + 8 :]
    assert not is_cut_off(large) and is_cut_off(large[:-500])


SILENT = (
    *(b"", b"\x1aE\xdf\xa3", b"\0\0\0\x08ftyp", b"\0\0\0\x0cftypisom" * 3),
    *(b"RIFF\xff\xff\xff\xffWAVE", b"no video at all"),
)


@pytest.mark.parametrize("data", SILENT)
def test_what_says_nothing_is_not_judged(data):
    assert not is_cut_off(data)


def test_boxes_that_claim_to_hold_what_follows_them_are_read_once():
    inner = (2**31 - 1).to_bytes(4, "big") + b"trak"
    moov = ((16).to_bytes(4, "big") + b"trak" + inner) * 5000  # 2 to the power of that many, if not
    boxes = (b"ftypisom\0\0\0\0", b"moov" + moov)
    data = b"".join((len(box) + 4).to_bytes(4, "big") + box for box in boxes)
    assert is_cut_off(data + (1000).to_bytes(4, "big") + b"mdat")
