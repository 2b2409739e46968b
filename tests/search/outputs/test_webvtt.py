import av
import pytest

from vmm.search.outputs.webvtt import write


def read(path):
    """Start, end and text of each cue, as FFmpeg reads them."""
    with av.open(str(path), format="webvtt") as container:
        (stream,) = container.streams
        assert stream.codec_context.name == "webvtt"
        packets = [packet for packet in container.demux(stream) if packet.size]
        return [
            (
                float(packet.pts * packet.time_base),
                float((packet.pts + packet.duration) * packet.time_base),
                bytes(packet).decode(),
            )
            for packet in packets
        ]


def test_chapters_in_the_order_of_time(found, tmp_path):
    video = tmp_path / "a.mp4"
    result = found((video, 4000.5, 4008.25), (video, 8.0, 16.0), text="<b> & --> c\nd")
    assert write([result], tmp_path / "hits.vtt") == [f"wrote {tmp_path / 'hits.vtt'}"]
    escaped = r"&lt;b&gt; &amp; --&gt; c\x0ad"
    assert read(tmp_path / "hits.vtt") == [
        (8.0, 16.0, f"{escaped} (0.490)"),
        (4000.5, 4008.25, f"{escaped} (0.500)"),
    ]
    text = (tmp_path / "hits.vtt").read_text()
    assert text.startswith(f"WEBVTT\n\nNOTE {video}\n\n1\n00:00:08.000 --> 00:00:16.000\n")


def test_a_file_for_each_video_and_query(found, tmp_path):
    shard = tmp_path / "s.tar"
    results = [
        found(((shard, "../x/a.mp4"), 0.0, 1.0), (tmp_path / "A.mkv", 0.0, 1.0), name="../q"),
        found(((shard, "../x/a.mp4"), 0.5, 1.5), name="2"),
    ]
    said = write(results, tmp_path / "hits.vtt")
    names = ["hits.q.a.vtt", "hits.q.A-2.vtt", "hits.2.a.vtt"]
    assert said == [f"wrote {tmp_path / name}" for name in names]
    assert all(len(read(tmp_path / name)) == 1 for name in names)
    with pytest.raises(ValueError, match="no hits"):
        write([found()], tmp_path / "none.vtt")
