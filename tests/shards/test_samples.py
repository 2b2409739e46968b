import io
import json

import pytest
from PIL import Image

from tests.shards import clips
from tests.shards.made import make, metadata, samples
from vmm.data.annotations.record import Annotation
from vmm.data.clips import load_frames
from vmm.data.decode import decode_video
from vmm.data.shards import ShardSet
from vmm.data.transforms import ClipSettings
from vmm.shards.samples import Layout


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, range(40)),
        (0.0, 1.0, range(10)),
        (2.0, 2.5, range(20, 25)),
        (2.05, 2.25, [20, 21, 22]),  # 20 is still shown at 2.05
        (3.5, 30.0, range(35, 40)),
        (3.95, None, [39]),
    ],
)
def test_windows_are_cut_to_the_frame(tmp_path, start, end, expected):
    clips.write_clip(tmp_path / "media/a.mp4", range(40))
    item = Annotation("a", "a", ["c"], start=start, end=end)
    make([item], tmp_path / "media", tmp_path / "mp4", Layout("mp4"))
    (sample,) = samples(tmp_path / "mp4").values()
    frames = clips.frames_of(sample["mp4"])
    assert [clips.number_of(picture) for _, picture in frames] == list(expected)
    assert frames[0][0] == 0
    content = json.loads(sample["json"])
    assert content.get("cut") == (None if start is None else [start, end])
    assert "start" not in content and "end" not in content
    make([item], tmp_path / "media", tmp_path / "same", Layout("original"))
    (sample,) = samples(tmp_path / "same").values()
    assert sample["mp4"] == (tmp_path / "media/a.mp4").read_bytes()
    content = json.loads(sample["json"])
    assert (content.get("start"), content.get("end")) == (start, end) and "cut" not in content


@pytest.mark.parametrize("extension", ["mp4", "ts", "mkv"])
def test_windows_count_from_the_first_frame_as_in_training(tmp_path, extension):
    """A recording whose clock begins at ten seconds, cut here and, as it is, by the reader."""
    times = [10_000 + 100 * i for i in range(40)]
    clips.write_clip(tmp_path / f"media/a.{extension}", range(40), times=times)
    item = Annotation("a", "a", ["c"], start=2.0, end=2.5)
    settings = ClipSettings(num_frames=5, image_size=16, sampling="dense")
    for kind in ("original", "mp4"):
        make([item], tmp_path / "media", tmp_path / kind, Layout(kind))
        raw = ShardSet(f"{tmp_path}/{kind}/*.tar", "video").read(0, 0)
        frames = load_frames(raw, "video", settings).permute(0, 2, 3, 1).numpy()
        assert [clips.number_of(frame) for frame in frames] == [20, 21, 22, 23, 24]


def test_two_windows_of_a_file_are_two_samples_and_two_questions_one(tmp_path):
    clips.write_clip(tmp_path / "media/a.mp4", range(20))
    items = [
        Annotation("q1", "a", ["who?"], metadata={"answer": 1}),
        Annotation("w1", "a", ["first"], start=0.0, end=1.0),
        Annotation("q2", "a", ["what?"], metadata={"answer": 2}),
        Annotation("w2", "a", ["second"], start=1.0, end=2.0),
    ]
    make(items, tmp_path / "media", tmp_path / "out", Layout("mp4"))
    whole, first, second = metadata(tmp_path / "out")
    assert whole["caption"] == ["who?", "what?"] and "cut" not in whole
    assert whole["items"] == [
        {"id": "q1", "metadata": {"answer": 1}}, {"id": "q2", "metadata": {"answer": 2}},
    ]  # fmt: skip
    assert [(x["caption"], x["cut"]) for x in (first, second)] == [
        ("first", [0.0, 1.0]), ("second", [1.0, 2.0]),
    ]  # fmt: skip


def test_what_no_reader_takes_is_not_written(tmp_path, monkeypatch):
    file = clips.write_clip(tmp_path / "media/a.mp4", range(20))
    monkeypatch.setattr("vmm.shards.samples.MAX_MEMBER_BYTES", file.stat().st_size - 1)
    item = Annotation("a", "a", ["c"])
    summary = make([item], tmp_path / "media", tmp_path / "out", Layout())
    assert summary.failed == {"too large": 1} and not samples(tmp_path / "out")


def test_a_window_in_which_nothing_is_shown_fails(tmp_path):
    clips.write_clip(tmp_path / "media/a.mp4", range(5))
    item = Annotation("a", "a", ["c"], start=7.0, end=9.0)
    summary = make([item], tmp_path / "media", tmp_path / "out", Layout("frames"))
    assert summary.failed == {"bad window": 1}
    detail = json.loads((tmp_path / "out/failures.jsonl").read_text())["detail"]
    assert detail == "none is shown from 7.0 to 9.0 s"


def test_what_training_reads_is_kept_as_it_is_whatever_its_name(tmp_path):
    """All containers of the table; an MPEG-TS that is called .mp4 is read by its content."""
    media = tmp_path / "media"
    for number, name in enumerate(("a.mpg", "b.m4v", "c.3gp", "d.ts", "e.flv", "f.mkv")):
        clips.write_clip(media / name, [number] * 6)
    (media / "g.mp4").write_bytes((media / "d.ts").read_bytes())
    items = [Annotation(name, name, ["c"]) for name in "abcdefg"]
    summary = make(items, media, tmp_path / "same", Layout("original"))
    assert summary.failed == {}
    shards = ShardSet(f"{tmp_path}/same/*.tar", "video")
    found = [shards.read(*shards.locate(i)) for i in range(len(shards))]
    assert [raw.extension for raw in found] == ["mpg", "m4v", "3gp", "ts", "flv", "mkv", "mp4"]
    numbers = [clips.number_of(decode_video(raw.data, lambda t: [len(t) - 1])[0]) for raw in found]
    assert numbers == [0, 1, 2, 3, 4, 5, 3]
    for kind in ("mp4", "frames"):
        summary = make(items, media, tmp_path / kind, Layout(kind))
        assert summary.failed == {}


def test_what_training_cannot_read_is_not_packed_as_a_success(tmp_path):
    media = tmp_path / "media"
    clips.write_clip(media / "good.mp4", [1] * 20)
    content = (media / "good.mp4").read_bytes()
    start = content.index(b"mdat") + 4
    # Its header is whole, so that it opens; its pictures are not.
    broken = content[:start] + bytes(len(content) - start - 900) + content[-900:]
    (media / "broken.mp4").write_bytes(broken)
    picture = io.BytesIO()
    Image.new("RGB", (16, 16)).save(picture, "JPEG")
    (media / "photo.mp4").write_bytes(picture.getvalue())
    (media / "bare.mjpeg").write_bytes(picture.getvalue())
    items = [Annotation(name, name, ["c"]) for name in ("good", "broken", "photo", "bare")]
    items.append(Annotation("late", "good", ["c"], start=7.0, end=9.0))
    summary = make(items, media, tmp_path / "out", Layout("original"))
    lines = (tmp_path / "out/failures.jsonl").read_text().splitlines()
    reasons = {line["id"]: (line["reason"], line["detail"]) for line in map(json.loads, lines)}
    assert summary.successes == 1
    assert {key: reason for key, (reason, _) in reasons.items()} == {
        "broken": "unreadable",
        "photo": "unreadable",
        "bare": "unsupported",
        "late": "bad window",
    }
    assert "convert it" in reasons["photo"][1] and "ffmpeg -i bare.mjpeg" in reasons["bare"][1]


@pytest.mark.parametrize("kind", ["original", "mp4", "frames"])
def test_half_a_download_is_not_packed_as_a_short_clip(tmp_path, kind):
    clips.write_clip(tmp_path / "media/a.mkv", range(40))
    clips.write_clip(tmp_path / "media/b.mkv", range(40))
    data = (tmp_path / "media/a.mkv").read_bytes()
    (tmp_path / "media/a.mkv").write_bytes(data[: len(data) * 2 // 3])
    items = [Annotation("a", "a", ["c"]), Annotation("b", "b", ["c"])]
    make(items, tmp_path / "media", tmp_path / "out", Layout(kind))
    assert len(samples(tmp_path / "out")) == 1
    (failed,) = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    assert json.loads(failed)["reason"] == "cut off"


def test_images_are_made_smaller(tmp_path):
    clips.write_picture(tmp_path / "media/a.png", 33, size=(60, 80))
    item = Annotation("a", "a.png", ["c"], kind="image")
    make([item], tmp_path / "media", tmp_path / "out", Layout("frames", short_side=30))
    shards = ShardSet(f"{tmp_path}/out/*.tar", "image")
    raw = shards.read(0, 0)
    assert raw.extension == "jpg" and (raw.metadata["width"], raw.metadata["height"]) == (40, 30)
