import io
import json
import tarfile

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vmm.data.annotations.media import MediaError
from vmm.data.annotations.record import Annotation
from vmm.data.faults import BadSamples
from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.sources import AnnotatedClips, ShardClips, kind_in
from vmm.shards.tars import write_shard

CLIP = ClipSettings(2, 16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def mp4(levels):
    """A grey film of one frame per level, ten a second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for level in levels:
            frame = np.full((16, 16, 3), level, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


BRIGHT, DARK = mp4([200] * 10), mp4([50] * 10)
RISING = mp4([40] * 10 + [120] * 10 + [220] * 10)


def level(sample):
    return round(255 * sample.video.mean().item(), -1)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "media"
    (folder / "part one").mkdir(parents=True)
    (folder / "part one" / "señal.mp4").write_bytes(BRIGHT)
    (folder / "12@N00_1_aa.mov").write_bytes(DARK)
    (folder / "rising.mp4").write_bytes(RISING)
    (folder / "broken.mp4").write_bytes(b"no film")
    (folder / "empty.mp4").write_bytes(b"")
    return folder


def item(name, **fields):
    return Annotation(name, name, [f"caption of {name}"], **fields)


def shard_of(path, samples):
    with tarfile.open(path, "w") as tar:
        for name, data in samples.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def test_media_are_found_by_their_stems_and_problems_have_reasons(folder, tmp_path):
    names = ["señal", "12@N00_1_aa", "broken", "empty.mp4", "gone", "part two/señal.mp4"]
    bad = BadSamples(str(tmp_path / "bad.jsonl"))
    clips = AnnotatedClips([item(name) for name in names], str(folder), CLIP, bad=bad)
    samples = [clips[i] for i in range(len(clips))]
    assert [sample.key for sample in samples] == names
    assert [sample.number for sample in samples] == list(range(6))
    assert [level(sample) for sample in samples[:2]] == [200, 50]
    assert [s.problem for s in samples] == [None, None, "unreadable", "empty", "missing", "missing"]
    assert all(s.video is None and s.captions for s in samples[2:])
    lines = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == names[2:]
    assert clips.media(1) == ("mov", DARK)
    assert clips.film(1) == folder / "12@N00_1_aa.mov"
    with pytest.raises(MediaError, match="missing"):
        clips.film(4)


def test_missing_files_are_one_line_and_the_first_few(folder, caplog):
    items = [item("rising"), *(item(f"gone {i}") for i in range(5000))]
    clips = AnnotatedClips(items, str(folder), CLIP, bad=BadSamples())
    (record,) = caplog.records
    assert "5000 of 5001 videos are missing or ambiguous" in record.message
    assert "'gone 0'" in record.message and "'gone 2'" in record.message
    assert "'gone 3'" not in record.message and len(record.message) < 1000
    for number in range(1, 1001):
        assert clips[number].problem == "missing"
    assert len(caplog.records) == 1 + 4  # the 1st, 10th, 100th and 1000th


def test_the_described_part_is_taken_and_the_order_can_be_reversed(folder):
    parts = [(None, None), (0.0, 1.0), (1.0, 2.0), (2.0, None)]
    items = [item("rising", start=a, end=b) for a, b in parts]
    clips = AnnotatedClips(items, str(folder), CLIP)
    assert [level(clips[i]) for i in range(1, 4)] == [40, 120, 220]
    forward, backward = clips[0], AnnotatedClips(items, str(folder), CLIP, "reversed")[0]
    assert torch.equal(backward.video, forward.video.flip(0))
    assert forward.video[0].mean() < forward.video[1].mean()


def test_shards_are_searched_by_key_and_by_the_names_that_make_shards_keeps(tmp_path):
    made = {"media": "x/señal.mp4", "items": [{"id": "id7"}], "start": 1.0, "end": 2.0,
            "caption": "c"}  # fmt: skip
    shards = shard_of(
        tmp_path / "00000.tar",
        {"000000000.mp4": RISING, "000000000.json": json.dumps(made).encode(),
         "dark.mp4": DARK, "dark.txt": b"c"},
    )  # fmt: skip
    items = [item("dark.avi"), item("señal"), item("id7"), item("000000000")]
    clips = AnnotatedClips(items, shards, CLIP)
    assert [level(clips[i]) for i in range(3)] == [50, 120, 120]
    assert clips[3].problem == "missing"  # a number of make_shards is nobody's id
    # The whole file is stored, and what it says of the part holds, not the annotation.
    assert level(AnnotatedClips([item("id7", start=2.0)], shards, CLIP)[0]) == 120
    # The folder of the shards will do.
    assert level(AnnotatedClips(items, str(tmp_path), CLIP)[0]) == 50
    assert clips.media(0) == ("mp4", DARK)


def test_two_samples_of_one_name_are_no_guess(tmp_path):
    shards = shard_of(
        tmp_path / "a.tar",
        {"x/clip.mp4": DARK, "x/clip.txt": b"c", "y/clip.mp4": BRIGHT, "y/clip.txt": b"c",
         "z.mp4": DARK, "z.txt": b"c"},
    )  # fmt: skip
    clips = AnnotatedClips([item("clip"), item("z")], shards, CLIP)
    assert clips[0].problem == "ambiguous" and clips[1].problem is None


def test_what_systems_leave_makes_no_folder_of_shards_and_is_no_media(folder):
    (folder / "._00000.tar").write_bytes(b"\0\5\x16\7Mac")
    (folder / "__MACOSX").mkdir()
    for name in ("._rising.mp4", "__MACOSX/._rising.mp4", "__MACOSX/rising.mp4"):
        (folder / name).write_bytes(b"\0\5\x16\7Mac")
    clips = AnnotatedClips([item("rising")], str(folder), CLIP)
    assert clips[0].problem is None
    (folder / "empty" / "@eaDir").mkdir(parents=True)
    for name in ("._rising.mp4", "@eaDir/rising.mp4"):
        (folder / "empty" / name).write_bytes(b"\0\5\x16\7Mac")
    with pytest.raises(ValueError, match="there is no video in"):
        AnnotatedClips([item("rising")], str(folder / "empty"), CLIP)


def test_nothing_found_is_an_error(folder):
    with pytest.raises(ValueError, match="not one of the 2 videos of the annotations is in"):
        AnnotatedClips([item("a"), item("b")], str(folder), CLIP)
    with pytest.raises(ValueError, match="matches no file"):
        AnnotatedClips([item("a")], str(folder / "none.tar"), CLIP)
    with pytest.raises(ValueError, match="videos and images"):
        AnnotatedClips([item("señal"), item("b", kind="image")], str(folder), CLIP)


def test_images_are_clips_of_one_frame(tmp_path):
    Image.new("RGB", (20, 20), (90, 90, 90)).save(tmp_path / "a.jpg")
    sample = AnnotatedClips([item("a.jpg", kind="image")], str(tmp_path), CLIP)[0]
    assert sample.video.shape == (1, 3, 16, 16) and level(sample) == 90


def test_shards_are_of_images_only_where_there_is_not_one_video(tmp_path):
    one = [("a.jpg", b"x"), ("a.json", b"{}")]
    write_shard(tmp_path / "images.tar", [one])
    write_shard(tmp_path / "mixed.tar", [one, [("b.mp4", b"x")]])
    write_shard(tmp_path / "nothing.tar", [[("c.json", b"{}")]])
    kinds = [kind_in(f"{tmp_path}/{name}.tar") for name in ("images", "mixed", "nothing")]
    assert kinds == ["image", "video", "video"]


def test_states_of_the_data_are_told_apart(folder, tmp_path):
    items = [item("señal"), item("rising")]

    def state(items=items):
        return AnnotatedClips(items, str(folder), CLIP).fingerprint()

    first = state()
    assert state() == first
    assert state([items[0]._replace(captions=["other"]), items[1]]) != first
    (folder / "rising.mp4").write_bytes(RISING + b"\0")
    assert state() != first
    shards = shard_of(tmp_path / "a.tar", {"a.mp4": DARK, "a.txt": b"c"})
    before = ShardClips(shards, CLIP).fingerprint()
    assert ShardClips(shards, CLIP).fingerprint() == before
    shard_of(tmp_path / "a.tar", {"a.mp4": DARK, "a.txt": b"d", "b.txt": b"e"})
    assert ShardClips(shards, CLIP).fingerprint() != before


# ---------------------------------------------------------------- protocols
