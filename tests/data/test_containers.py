"""What is opened and how, on both sides of every change of PyAV's ways."""

import io
import os
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from tests.data import videos
from vmm.data.clips import load_frames
from vmm.data.containers import (
    DecodeError,
    frame_rate,
    library_errors,
    open_video,
    rational,
    reformat_arguments,
)
from vmm.data.decode import decode_parts, decode_video
from vmm.data.pictures import decode_image
from vmm.data.schema import VIDEO_FORMATS, RawSample
from vmm.data.transforms import ClipSettings


@pytest.fixture
def clip():
    return videos.make("h264")


@pytest.mark.parametrize("version", ["15.1.0", "18.1.0", "19.0.2", "20.0.0"])
def test_av_open_is_asked_in_the_words_of_its_version(monkeypatch, clip, version):
    real, old = av.open, int(version.split(".")[0]) < 19
    allowed = {"metadata_errors"} if old else set()
    asked = []

    def of_version(file, mode="r", *, container_options=None, **more):
        if unknown := more.keys() - allowed:
            raise TypeError(f"open() got an unexpected keyword argument {unknown.pop()!r}")
        asked.append(more)
        return real(file, mode, container_options=container_options)

    monkeypatch.setattr(av, "__version__", version)
    monkeypatch.setattr(av, "open", of_version)
    assert len(decode_video(clip, lambda t: [0, 3])) == 2
    assert asked == [{"metadata_errors": "ignore"} if old else {}]
    assert reformat_arguments(version) == ({} if version.startswith("15") else {"threads": 1})


def test_tags_that_are_not_utf_8_are_borne():
    data = videos.encode_video(videos.moving_picture(4), container="matroska")
    with_tag = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(with_tag, "w", format="matroska") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        output.metadata["title"] = "a title"
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    broken = with_tag.getvalue().replace(b"a title", b"\xff\xfe\xe9tle!")
    assert broken != with_tag.getvalue()
    assert len(decode_video(broken, lambda t: range(len(t)))) == 4


@pytest.mark.parametrize(("known", "expected"), [(None, 25), (0, 25), (Fraction(0), 25), (30, 30)])
def test_numbers_that_ffmpeg_does_not_know(known, expected):
    assert rational(known, Fraction(25)) == Fraction(expected)


def test_a_mistake_in_our_call_is_no_bad_file(monkeypatch, clip, tmp_path, tools):
    """It must end the run, with its trace, not be counted among the unreadable videos."""

    def of_another_version(*arguments, **more):
        raise TypeError("got an unexpected keyword argument")

    path = tmp_path / "a.mp4"
    path.write_bytes(clip)
    settings = ClipSettings(num_frames=2, image_size=16)
    from vmm.shards.media_files import open_video as open_to_encode

    monkeypatch.setattr(av, "open", of_another_version)
    monkeypatch.setattr(Image, "open", of_another_version)
    for call in (
        lambda: decode_video(clip, lambda t: [0]),
        lambda: next(decode_parts(path, lambda t: [[0]])),
        lambda: load_frames(RawSample("a", 0, "mp4", clip, [], {}), "video", settings),
        lambda: open_to_encode(path).__enter__(),
        lambda: decode_image(tools.coded_jpeg(1)),
    ):
        with pytest.raises(TypeError, match="unexpected keyword"):
            call()


@pytest.mark.parametrize("kind", ["h264", "dv", "vp8 ogv", "h264 ts", "mpeg2 m2v", "wmv2 asf"])
def test_rates_are_those_of_the_film(kind):
    with open_video(videos.make(kind)) as (_, stream):
        assert frame_rate(stream) == 25


@pytest.mark.parametrize("place", ["demux", "decode", "convert"])
def test_a_mistake_while_decoding_is_no_bad_file(monkeypatch, clip, place):
    def wrong(*arguments):
        raise TypeError("takes 2 arguments")

    where = {"demux": "read_timeline", "decode": "needed_packets", "convert": "Converter"}[place]
    monkeypatch.setattr(f"vmm.data.decode.{where}", wrong)
    with pytest.raises(TypeError, match="takes 2"):
        decode_video(clip, lambda t: [0])


def test_whatever_a_file_is_called_its_content_decides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("a.mp4", "b.txt", "c", "pipe:0.mp4", "http:d.ts", "concat:a|b.mpg", "e%03d.jpg")
    for kind in ("h264", "h264 ts", "mpeg1 mpg", "mpeg2 m2v", "wmv2 asf", "h264 flv", "rv20 rm"):
        content = videos.make(kind)
        expected = decode_video(content, lambda t: [0, len(t) // 2])
        for name in names:
            path = tmp_path / name
            path.write_bytes(content)
            for video in (path, content):
                (frames,) = decode_parts(video, lambda t: [[0, len(t) // 2]])
                assert np.array_equal(frames, expected), (kind, name)


NEVER_OPENED = {
    "playlist": b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "dash": b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    b"<BaseURL>file:///etc/passwd</BaseURL></MPD>",
    "session": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "metadata": b";FFMETADATA1\ntitle=x\n",
    "subtitles": b"1\n00:00:01,000 --> 00:00:02,000\nhello\n" * 9,
    "y4m": b"YUV4MPEG2 W16 H16 F25:1 Ip A1:1\nFRAME\n" + bytes(384),
    "smooth streaming": b"<SmoothStreamingMedia MajorVersion='2'></SmoothStreamingMedia>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
}


def test_what_a_library_says_comes_behind_a_sentence():
    with pytest.raises(DecodeError) as told:
        next(decode_parts(b"no film" * 100, lambda t: [[0]]))
    assert str(told.value) == (
        "unreadable: damaged, cut off or no video; does it play? "
        "(InvalidDataError: Invalid data found when processing input)"
    )
    said = r"network does not give it; .* \(OSError: bad disk\)"
    with pytest.raises(DecodeError, match=said), library_errors():
        raise OSError(5, "bad disk")


@pytest.mark.parametrize("kind", NEVER_OPENED)
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.mpd", "a.sdp"])
def test_what_leads_elsewhere_is_never_opened(tmp_path, kind, name):
    path = tmp_path / name
    path.write_bytes(NEVER_OPENED[kind])
    for video in (path, NEVER_OPENED[kind]):
        with pytest.raises(DecodeError, match="unreadable"):
            next(decode_parts(video, lambda t: [[0]]))


def test_pictures_and_bare_streams_are_no_videos(tools):
    for data in (
        tools.coded_jpeg(1),
        videos.encode_video(
            videos.moving_picture(3), codec="mjpeg", container="mjpeg", pix_fmt="yuvj420p"
        ),
        videos.encode_video(videos.moving_picture(3), container="h264"),
        videos.encode_video(videos.moving_picture(3), codec="libvpx", container="ivf"),
    ):
        with pytest.raises(DecodeError, match="none of the containers"):
            decode_video(data, lambda t: [0])


def test_nothing_else_is_opened_for_a_file(monkeypatch, clip):
    asked = []
    real = av.open
    monkeypatch.setattr(av, "open", lambda *a, **k: (asked.append(k), real(*a, **k))[1])
    decode_video(clip, lambda t: [0])
    (options,) = (arguments["container_options"] for arguments in asked)
    assert options["protocol_whitelist"] == ""
    allowed = set(options["format_whitelist"].split(","))
    assert allowed == set(VIDEO_FORMATS.values())
    leading = {"hls", "dash", "concat", "image2", "sdp", "rtsp", "rtp", "lavfi", "imf", "smil"}
    assert not allowed & leading


def with_streams(*streams, container="mp4"):
    """Encode (frames, options, disposition) side by side, after a silent sound."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        sound = output.add_stream("aac", rate=16000)
        opened = []
        for frames, codec, disposition in streams:
            stream = output.add_stream(codec, rate=10)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.disposition = int(disposition.value)
            opened.append(stream)
        for stream, (frames, _, _) in zip(opened, streams, strict=True):
            for pixels in frames:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(stream.encode(None))
        videos._write_silence(output, sound)
    return buffer.getvalue()


COVER = (videos.moving_picture(1, 64, 64), "mjpeg", Disposition.attached_pic)
SMALL = (videos.moving_picture(10, 32, 48), "libx264", Disposition(0))
LARGE = (videos.moving_picture(10, 96, 128), "libx264", Disposition.default)


def test_a_song_with_a_cover_is_no_film():
    song = with_streams(COVER)
    for call in (
        lambda: decode_video(song, lambda t: [0]),
        lambda: next(decode_parts(song, lambda t: [[0]])),
    ):
        with pytest.raises(DecodeError, match="no video: the file has only a cover picture"):
            call()


def test_the_film_is_chosen_not_its_cover_and_not_the_first():
    assert decode_video(with_streams(COVER, SMALL), lambda t: [9]).shape == (1, 32, 48, 3)
    both = with_streams(SMALL, LARGE)
    with av.open(io.BytesIO(both)) as container:
        first, best = container.streams.video[0].index, container.streams.best("video").index
    assert first != best
    assert decode_video(both, lambda t: [9]).shape == (1, 96, 128, 3)
    (frames,) = decode_parts(both, lambda t: [[9]])
    assert frames.shape == (1, 96, 128, 3)
    with open_video(both) as (_, stream):
        assert stream.index == best


def anamorphic(aspect, frames, **options):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "4"}
        stream.codec_context.sample_aspect_ratio = aspect
        for pixels in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("aspect", "shape"),
    [
        (Fraction(2), (64, 128)),
        (Fraction(16, 15), (64, 68)),
        (Fraction(1, 2), (128, 64)),
        (Fraction(1), (64, 64)),
        (Fraction(1, 100), (64, 64)),  # no camera has such pixels
        (Fraction(100), (64, 64)),
    ],
)
def test_pixels_that_are_not_square_are_made_square(aspect, shape):
    # A coded ellipse that is a disc where its pixels have this shape.
    y, x = np.mgrid[:64, :64] - 31.5
    wide, high = (min(1, 1 / aspect), min(1, aspect)) if 1 / 8 < aspect < 8 else (1, 1)
    disc = (x / (24 * wide)) ** 2 + (y / (24 * high)) ** 2 < 1
    frames = np.repeat(disc[None, :, :, None] * np.uint8(255), 3, -1).repeat(4, 0)
    data = anamorphic(aspect, frames)
    picture = decode_video(data, lambda t: [2])[0]
    assert picture.shape == (*shape, 3)
    bright = picture[..., 1] > 127
    height, width = bright.any(1).sum(), bright.any(0).sum()
    assert abs(int(height) - int(width)) <= 2 and height >= 46
    (parts,) = decode_parts(data, lambda t: [[2]])
    assert np.array_equal(parts[0], picture)


def test_the_limit_counts_the_pixels_that_are_shown():
    data = anamorphic(Fraction(4), videos.moving_picture(3, 64, 64))
    with pytest.raises(DecodeError, match="too large: 256x64"):
        decode_video(data, lambda t: [0], max_pixels=64 * 64 * 2)


def test_a_stream_without_a_decoder_is_unreadable():
    data = videos.make("h264").replace(b"avc1", b"zzz9")
    with pytest.raises(DecodeError, match="unreadable: FFmpeg knows no decoder"):
        decode_video(data, lambda t: [0])


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no such call here")
def test_an_encoder_leaves_the_process_as_it_was_scheduled():
    before = os.sched_getscheduler(0)
    videos.encode_video(videos.moving_picture(3, 64, 64), codec="libsvtav1", preset="10")
    assert os.sched_getscheduler(0) == before


def test_there_is_a_video_of_every_container_that_is_read():
    seen = set()
    for kind in videos.KINDS:
        with open_video(videos.make(kind)) as (container, _):
            seen.update(container.format.name.split(","))
    assert set(VIDEO_FORMATS.values()) <= seen
