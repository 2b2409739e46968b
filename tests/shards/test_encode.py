import io
import json
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from tests.shards import clips
from tests.shards.made import make, metadata, samples
from vmm.data.annotations.record import Annotation
from vmm.data.decode import decode_video
from vmm.shards.demo.shapes import render, twin_pairs
from vmm.shards.encode import encode_jpeg, encode_mp4
from vmm.shards.samples import Layout


def test_pictures_at_a_rate(tmp_path):
    clips.write_clip(tmp_path / "media/a.mp4", range(40))  # 10 per second
    uneven = [0, 100, 900, 950, 2000, 2040]
    clips.write_clip(tmp_path / "media/b.mp4", range(6), times=uneven)
    items = [Annotation(name, name, ["c"]) for name in "ab"]
    layout = Layout("frames", fps=3)
    make(items, tmp_path / "media", tmp_path / "out", layout)
    even, odd = (clips.frames_of(sample["mkv"]) for sample in samples(tmp_path / "out").values())
    assert [round(t, 3) for t, _ in even] == [round(k / 3, 3) for k in range(12)]
    assert [clips.number_of(p) for _, p in even] == [int(10 * k / 3 + 1e-9) for k in range(12)]
    # What is on display at 0, 1/3, 2/3 ... 2 s; one frame that stays is stored once.
    assert [clips.number_of(p) for _, p in odd] == [0, 1, 3, 4]
    assert [round(t, 3) for t, _ in odd] == [0, 0.333, 1, 2]
    contents = metadata(tmp_path / "out")
    assert [c["codec"] for c in contents] == ["mjpeg"] * 2 and contents[0]["duration"] == 4.0

    make(items[:1], tmp_path / "media", tmp_path / "fast", Layout("frames", fps=60))
    (sample,) = samples(tmp_path / "fast").values()
    assert [clips.number_of(p) for _, p in clips.frames_of(sample["mkv"])] == list(range(40))


def test_pictures_are_key_frames_that_the_reader_decodes(tmp_path):
    clips.write_clip(tmp_path / "media/a.mp4", range(40))
    make([Annotation("a", "a", ["c"])], tmp_path / "media", tmp_path / "out", Layout("frames"))
    (sample,) = samples(tmp_path / "out").values()
    with av.open(io.BytesIO(sample["mkv"])) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        assert all(p.is_keyframe for p in packets) and len(packets) == 12
        assert container.streams.video[0].average_rate == Fraction(3)
    chosen = decode_video(sample["mkv"], lambda times: [len(times) - 1, 2])
    numbers = [clips.number_of(frame) for frame in chosen]
    assert numbers == [36, 6]


def test_sizes_and_key_frames(tmp_path):
    clips.write_clip(tmp_path / "media/a.mp4", [7] * 30, size=(90, 160))
    for side, size in ((46, (46, 80)), (200, (90, 160)), (None, (90, 160))):
        out = tmp_path / f"out{side}"
        layout = Layout("mp4", short_side=side, gop=6)
        make([Annotation("a", "a", ["c"])], tmp_path / "media", out, layout)
        (sample,) = samples(out).values()
        with av.open(io.BytesIO(sample["mp4"])) as container:
            packets = [p for p in container.demux(video=0) if p.size]
        keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        assert keys == [0, 6, 12, 18, 24]
        assert clips.frames_of(sample["mp4"])[0][1].shape[:2] == size
        content = json.loads(sample["json"])
        assert (content["height"], content["width"]) == size


def test_uneven_times_stay_uneven(tmp_path):
    uneven = [0, 40, 500, 510, 1200]
    clips.write_clip(tmp_path / "media/a.mkv", range(5), times=uneven)
    make([Annotation("a", "a", ["c"])], tmp_path / "media", tmp_path / "out", Layout("mp4"))
    (sample,) = samples(tmp_path / "out").values()
    frames = clips.frames_of(sample["mp4"])
    assert [round(t, 3) for t, _ in frames] == [t / 1000 for t in uneven]
    assert [clips.number_of(p) for _, p in frames] == list(range(5))


def test_a_decoded_frame_does_not_depend_on_its_place_in_the_clip():
    # Else a statistic of single frames, such as sharpness, tells the direction of time.
    scene = twin_pairs()[7][0]
    frames = render(scene, 24, 64, np.random.default_rng(0))
    clip = [picture for _, picture in clips.frames_of(encode_mp4(frames, 12))]
    for number in (0, 1, 2, 8, 9, 10, 23):
        ((_, alone),) = clips.frames_of(encode_mp4(frames[number : number + 1], 12))
        assert np.array_equal(clip[number], alone)


def test_a_better_picture_takes_more_bytes():
    y, x = np.mgrid[:32, :48]
    frame = np.stack([4 * x, 6 * y, 100 + 50 * np.sin(x * y / 40)], -1).astype(np.uint8)
    files = [encode_jpeg(frame, quality) for quality in (5, 95)]
    shown = [np.asarray(Image.open(io.BytesIO(file))).astype(int) for file in files]
    coarse, fine = (np.abs(picture - frame).mean() for picture in shown)
    assert fine < coarse / 4 and len(files[0]) < len(files[1])
