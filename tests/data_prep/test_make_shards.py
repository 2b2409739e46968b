import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

from data_prep import make_shards as module
from data_prep.make_shards import main, make_shards
from data_prep.samples import Layout
from tests.data.annotations.examples import EXAMPLES
from vmm.data.annotations.record import Annotation
from vmm.data.clips import load_frames
from vmm.data.decode import decode_video
from vmm.data.index import scan_shard
from vmm.data.shards import ShardSet
from vmm.data.transforms import ClipSettings


def samples(folder):
    """{key: {extension: content}} of all shards of a folder."""
    found = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, extension = member.name.rpartition(".")
                found.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return found


def metadata(folder):
    return [json.loads(sample["json"]) for sample in samples(folder).values()]


def shard_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_format_arrives_in_the_reader_with_its_captions_and_media(tmp_path, clips, name):
    example = EXAMPLES[name]
    path = example.write(tmp_path / "files")
    kind = "image" if next(iter(example.media)).endswith("jpg") else "video"
    for number, file in enumerate(example.media):
        write = clips.write_picture if kind == "image" else clips.write_clip
        write(tmp_path / "media" / file, number if kind == "image" else [number] * 4)
    flags = []
    for option, value in example.options.items():
        if option == "paragraph":
            flags += ["--paragraph" if value else "--no-paragraph"]
        else:
            flags += [f"--{option}", str(tmp_path / "files" / value) if option == "ids" else value]
    media, out = str(tmp_path / "media"), tmp_path / "out"
    arguments = [str(path), media, "-o", str(out), "--dataset", example.dataset, "--workers", "1"]
    assert main(arguments + flags) == 0
    assert (out / "failures.jsonl").read_text().strip() == ""

    shards = ShardSet(f"{out}/*.tar", kind)
    assert not shards.skipped and not shards.damaged
    read = [shards.read(*shards.locate(i)) for i in range(len(shards))]
    listed = [(item["id"], r) for r in read for item in r.metadata["items"]]
    # Several questions about a video are one sample, whose captions are the questions.
    assert [key for key, _ in listed] == [key for key, _ in example.items]
    assert [c for r in read for c in r.captions] == [c for _, cs in example.items for c in cs]
    by_id = dict(listed)
    for file, key in example.media.items():
        assert by_id[key].data == (tmp_path / "media" / file).read_bytes()
    first = read[0].metadata["items"][0]["metadata"]
    assert first | json.loads(json.dumps(dict(example.metadata))) == first


@pytest.fixture
def mixed(tmp_path, clips):
    """Twelve clips of which some cannot be used, and what is said about them."""
    media = tmp_path / "media"
    items = []
    for number in range(12):
        if number not in (3, 7):
            clips.write_clip(media / f"clip{number}.mp4", [number] * 6)
        items.append(Annotation(f"k{number}", f"clip{number}", [f"caption {number}"]))
    (media / "clip7.mp4").write_bytes(b"this is no video")
    (media / "clip5.mp4").write_bytes((media / "clip5.mp4").read_bytes()[:700])
    items[9].captions.append("another")
    items[10].captions.clear()
    return items, media


@pytest.mark.parametrize("kind", ["original", "mp4", "frames"])
def test_the_content_does_not_depend_on_the_number_of_processes(tmp_path, mixed, kind):
    layout = Layout(kind, short_side=24)
    outs = [tmp_path / name for name in ("one", "three", "parts")]
    for out, workers in zip(outs[:2], (1, 3), strict=True):
        make_shards(*mixed, out, layout, samples_per_shard=4, workers=workers)
    for part in ((2, 9), (0, 2)):
        make_shards(*mixed, outs[2], layout, samples_per_shard=4, shard_range=part)
    first, *others = (shard_bytes(out) for out in outs)
    assert list(first) == ["00000.tar", "00001.tar", "00002.tar"]
    assert all(other == first for other in others)
    for name in ("summary.json", "failures.jsonl", "plan.json", "00001_stats.json"):
        assert len({(out / name).read_bytes() for out in outs}) == 1, name
    assert not list(tmp_path.glob("*/*.partial"))


@pytest.mark.parametrize("kind", ["original", "mp4", "frames"])
def test_captions_stay_with_their_media_and_failures_are_told(tmp_path, mixed, clips, kind):
    summary = make_shards(*mixed, tmp_path / "out", Layout(kind), samples_per_shard=5)
    found = samples(tmp_path / "out")
    numbers = {}
    for key, sample in found.items():
        content = json.loads(sample["json"])
        number = int(content["items"][0]["id"][1:])
        numbers[key] = number
        media = sample.get("mp4") or sample["mkv"]
        assert {clips.number_of(picture) for _, picture in clips.frames_of(media)} == {number}
        expected = {9: ["caption 9", "another"], 10: None}.get(number, f"caption {number}")
        assert content.get("caption") == expected
        assert sample.get("txt") == (expected.encode() if isinstance(expected, str) else None)
    assert list(numbers.values()) == [0, 1, 2, 4, 6, 8, 9, 10, 11]
    assert list(numbers)[-1] == "000020001"
    failures = [json.loads(x) for x in (tmp_path / "out/failures.jsonl").read_text().splitlines()]
    assert [(f["id"], f["shard"], f["key"], f["reason"]) for f in failures] == [
        ("k3", "00000", "000000003", "missing"),
        ("k5", "00001", "000010000", "unreadable"),
        ("k7", "00001", "000010002", "unreadable"),
    ]
    assert summary["failed"] == {"unreadable": 2, "missing": 1}
    assert (summary["count"], summary["successes"], summary["without_caption"]) == (12, 9, 1)
    assert summary == json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["bytes"] == sum(len(x) for x in shard_bytes(tmp_path / "out").values())


def test_a_finished_shard_is_never_made_again(tmp_path, mixed, monkeypatch):
    make = lambda **more: make_shards(  # noqa: E731
        *mixed, tmp_path / "out", Layout(), samples_per_shard=4, **more
    )
    make(shard_range=(1, 2))
    done = (tmp_path / "out/00001.tar").stat().st_mtime_ns
    for left in ("00000.tar.elsewhere-1.partial", "00002_stats.json.1.partial"):
        (tmp_path / "out" / left).write_bytes(b"half of a file")
    foreign = tmp_path / "out/00000.mp4.partial"
    foreign.touch()
    called = []
    write_one = module.write_one
    monkeypatch.setattr(module, "write_one", lambda n, *a: (called.append(n), write_one(n, *a)))
    assert make()["finished"] == 3 and called == [0, 2]
    assert (tmp_path / "out/00001.tar").stat().st_mtime_ns == done
    assert list((tmp_path / "out").glob("*.partial")) == [foreign]
    assert make()["finished"] == 3 and called == [0, 2]

    (tmp_path / "out/00002.tar").unlink()
    left = tmp_path / "out/00002.tar.elsewhere-1.partial"
    left.write_bytes(b"half of a shard")
    monkeypatch.setattr(module, "write_one", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make()
    assert not left.exists()  # before the work: repeated kills must not fill the disk
    with pytest.raises(ValueError, match="made with other layout; give another --out"):
        make_shards(*mixed, tmp_path / "out", Layout(short_side=8), samples_per_shard=4)
    with pytest.raises(ValueError, match="other annotations, items"):
        make_shards(mixed[0][1:], mixed[1], tmp_path / "out", Layout(), samples_per_shard=4)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/x.tar").touch()
    with pytest.raises(ValueError, match="holds other shards"):
        make_shards(*mixed, tmp_path / "foreign", Layout())


def test_killed_at_any_moment_and_started_again(tmp_path, clips):
    """SIGKILL of the whole run, workers too late to notice: nothing half-written counts."""
    media = tmp_path / "media"
    for number in range(24):
        clips.write_clip(media / f"{number}.mp4", [number] * 8, size=(120, 160))
    lines = "".join(f"{n}.mp4,caption {n}\n" for n in range(24))
    (tmp_path / "list.csv").write_text("file,caption\n" + lines)
    command = [
        sys.executable, "-m", "data_prep.make_shards", str(tmp_path / "list.csv"), str(media),
        "--layout", "mp4", "--samples-per-shard", "3",
    ]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*command, "-o", str(tmp_path / "whole"), "--workers", "1"], check=True, **quiet)
    out, kills = tmp_path / "out", 0
    for moment in (0.0, 0.15, 0.3):
        run = subprocess.Popen([*command, "-o", str(out), "--workers", "2"], **quiet)
        before = len(list(out.glob("*.tar")))
        while run.poll() is None and len(list(out.glob("*.tar*"))) <= before:
            time.sleep(0.005)
        time.sleep(moment)
        if run.poll() is None:
            os.kill(run.pid, signal.SIGKILL)
            kills += 1
        run.wait()
        for shard in out.glob("*.tar"):
            assert scan_shard(str(shard)).damage is None
            assert shard.read_bytes() == (tmp_path / "whole" / shard.name).read_bytes()
    assert kills >= 1
    subprocess.run([*command, "-o", str(out), "--workers", "2"], check=True, **quiet)
    assert shard_bytes(out) == shard_bytes(tmp_path / "whole") and len(shard_bytes(out)) == 8
    assert not list(out.glob("*.partial"))


def test_workers_end_with_the_run_that_started_them(tmp_path, clips):
    clips.write_clip(tmp_path / "media/a.mp4", [1] * 8)
    lines = "".join(f"a.mp4,c,{n},{n + 1}\n" for n in range(4000))
    (tmp_path / "list.csv").write_text("file,caption,start,end\n" + lines)
    run = subprocess.Popen(
        [sys.executable, "-m", "data_prep.make_shards", str(tmp_path / "list.csv"),
         str(tmp_path / "media"), "-o", str(tmp_path / "out"), "--workers", "2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (partials := list((tmp_path / "out").glob("*.tar.*.partial"))):
        assert run.poll() is None
        time.sleep(0.01)
    run.kill()
    run.wait()
    workers = [int(p.name.rsplit("-", 1)[1].split(".")[0]) for p in partials]
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in workers):
        if any(Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z" for pid in workers):
            break  # ended; nobody has collected it
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
def test_windows_are_cut_to_the_frame(tmp_path, clips, start, end, expected):
    clips.write_clip(tmp_path / "media/a.mp4", range(40))
    item = Annotation("a", "a", ["c"], start=start, end=end)
    make_shards([item], tmp_path / "media", tmp_path / "mp4", Layout("mp4"))
    (sample,) = samples(tmp_path / "mp4").values()
    frames = clips.frames_of(sample["mp4"])
    assert [clips.number_of(picture) for _, picture in frames] == list(expected)
    assert frames[0][0] == 0
    content = json.loads(sample["json"])
    assert content.get("cut") == (None if start is None else [start, end])
    assert "start" not in content and "end" not in content
    make_shards([item], tmp_path / "media", tmp_path / "same", Layout("original"))
    (sample,) = samples(tmp_path / "same").values()
    assert sample["mp4"] == (tmp_path / "media/a.mp4").read_bytes()
    content = json.loads(sample["json"])
    assert (content.get("start"), content.get("end")) == (start, end) and "cut" not in content


@pytest.mark.parametrize("extension", ["mp4", "ts", "mkv"])
def test_windows_count_from_the_first_frame_as_in_training(tmp_path, clips, extension):
    """A recording whose clock begins at ten seconds, cut here and, as it is, by the reader."""
    times = [10_000 + 100 * i for i in range(40)]
    clips.write_clip(tmp_path / f"media/a.{extension}", range(40), times=times)
    item = Annotation("a", "a", ["c"], start=2.0, end=2.5)
    settings = ClipSettings(num_frames=5, image_size=16, sampling="dense")
    for kind in ("original", "mp4"):
        make_shards([item], tmp_path / "media", tmp_path / kind, Layout(kind))
        raw = ShardSet(f"{tmp_path}/{kind}/*.tar", "video").read(0, 0)
        frames = load_frames(raw, "video", settings).permute(0, 2, 3, 1).numpy()
        assert [clips.number_of(frame) for frame in frames] == [20, 21, 22, 23, 24]


def test_two_windows_of_a_file_are_two_samples_and_two_questions_one(tmp_path, clips):
    clips.write_clip(tmp_path / "media/a.mp4", range(20))
    items = [
        Annotation("q1", "a", ["who?"], metadata={"answer": 1}),
        Annotation("w1", "a", ["first"], start=0.0, end=1.0),
        Annotation("q2", "a", ["what?"], metadata={"answer": 2}),
        Annotation("w2", "a", ["second"], start=1.0, end=2.0),
    ]
    make_shards(items, tmp_path / "media", tmp_path / "out", Layout("mp4"))
    whole, first, second = metadata(tmp_path / "out")
    assert whole["caption"] == ["who?", "what?"] and "cut" not in whole
    assert whole["items"] == [
        {"id": "q1", "metadata": {"answer": 1}}, {"id": "q2", "metadata": {"answer": 2}},
    ]  # fmt: skip
    assert [(x["caption"], x["cut"]) for x in (first, second)] == [
        ("first", [0.0, 1.0]), ("second", [1.0, 2.0]),
    ]  # fmt: skip


def test_what_no_reader_takes_is_not_written(tmp_path, clips, monkeypatch):
    file = clips.write_clip(tmp_path / "media/a.mp4", range(20))
    monkeypatch.setattr("data_prep.samples.MAX_MEMBER_BYTES", file.stat().st_size - 1)
    item = Annotation("a", "a", ["c"])
    summary = make_shards([item], tmp_path / "media", tmp_path / "out", Layout())
    assert summary["failed"] == {"too large": 1} and not samples(tmp_path / "out")


def test_a_window_in_which_nothing_is_shown_fails(tmp_path, clips):
    clips.write_clip(tmp_path / "media/a.mp4", range(5))
    item = Annotation("a", "a", ["c"], start=7.0, end=9.0)
    summary = make_shards([item], tmp_path / "media", tmp_path / "out", Layout("frames"))
    assert summary["failed"] == {"bad window": 1}
    detail = json.loads((tmp_path / "out/failures.jsonl").read_text())["detail"]
    assert detail == "none is shown from 7.0 to 9.0 s"


def test_pictures_at_a_rate(tmp_path, clips):
    clips.write_clip(tmp_path / "media/a.mp4", range(40))  # 10 per second
    uneven = [0, 100, 900, 950, 2000, 2040]
    clips.write_clip(tmp_path / "media/b.mp4", range(6), times=uneven)
    items = [Annotation(name, name, ["c"]) for name in "ab"]
    layout = Layout("frames", fps=3)
    make_shards(items, tmp_path / "media", tmp_path / "out", layout)
    even, odd = (clips.frames_of(sample["mkv"]) for sample in samples(tmp_path / "out").values())
    assert [round(t, 3) for t, _ in even] == [round(k / 3, 3) for k in range(12)]
    assert [clips.number_of(p) for _, p in even] == [int(10 * k / 3 + 1e-9) for k in range(12)]
    # What is on display at 0, 1/3, 2/3 ... 2 s; one frame that stays is stored once.
    assert [clips.number_of(p) for _, p in odd] == [0, 1, 3, 4]
    assert [round(t, 3) for t, _ in odd] == [0, 0.333, 1, 2]
    contents = metadata(tmp_path / "out")
    assert [c["codec"] for c in contents] == ["mjpeg"] * 2 and contents[0]["duration"] == 4.0

    make_shards(items[:1], tmp_path / "media", tmp_path / "fast", Layout("frames", fps=60))
    (sample,) = samples(tmp_path / "fast").values()
    assert [clips.number_of(p) for _, p in clips.frames_of(sample["mkv"])] == list(range(40))


def test_pictures_are_key_frames_that_the_reader_decodes(tmp_path, clips):
    clips.write_clip(tmp_path / "media/a.mp4", range(40))
    make_shards(
        [Annotation("a", "a", ["c"])], tmp_path / "media", tmp_path / "out", Layout("frames")
    )
    (sample,) = samples(tmp_path / "out").values()
    with av.open(io.BytesIO(sample["mkv"])) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        assert all(p.is_keyframe for p in packets) and len(packets) == 12
        assert container.streams.video[0].average_rate == Fraction(3)
    chosen = decode_video(sample["mkv"], lambda times: [len(times) - 1, 2])
    numbers = [clips.number_of(frame) for frame in chosen]
    assert numbers == [36, 6]


def test_sizes_and_key_frames(tmp_path, clips):
    clips.write_clip(tmp_path / "media/a.mp4", [7] * 30, size=(90, 160))
    for side, size in ((46, (46, 80)), (200, (90, 160)), (None, (90, 160))):
        out = tmp_path / f"out{side}"
        layout = Layout("mp4", short_side=side, gop=6)
        make_shards([Annotation("a", "a", ["c"])], tmp_path / "media", out, layout)
        (sample,) = samples(out).values()
        with av.open(io.BytesIO(sample["mp4"])) as container:
            packets = [p for p in container.demux(video=0) if p.size]
        keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        assert keys == [0, 6, 12, 18, 24]
        assert clips.frames_of(sample["mp4"])[0][1].shape[:2] == size
        content = json.loads(sample["json"])
        assert (content["height"], content["width"]) == size


def test_uneven_times_stay_uneven(tmp_path, clips):
    uneven = [0, 40, 500, 510, 1200]
    clips.write_clip(tmp_path / "media/a.mkv", range(5), times=uneven)
    make_shards([Annotation("a", "a", ["c"])], tmp_path / "media", tmp_path / "out", Layout("mp4"))
    (sample,) = samples(tmp_path / "out").values()
    frames = clips.frames_of(sample["mp4"])
    assert [round(t, 3) for t, _ in frames] == [t / 1000 for t in uneven]
    assert [clips.number_of(p) for _, p in frames] == list(range(5))


def test_what_training_reads_is_kept_as_it_is_whatever_its_name(tmp_path, clips):
    """All containers of the table; an MPEG-TS that is called .mp4 is read by its content."""
    media = tmp_path / "media"
    for number, name in enumerate(("a.mpg", "b.m4v", "c.3gp", "d.ts", "e.flv", "f.mkv")):
        clips.write_clip(media / name, [number] * 6)
    (media / "g.mp4").write_bytes((media / "d.ts").read_bytes())
    items = [Annotation(name, name, ["c"]) for name in "abcdefg"]
    summary = make_shards(items, media, tmp_path / "same", Layout("original"))
    assert summary["failed"] == {}
    shards = ShardSet(f"{tmp_path}/same/*.tar", "video")
    found = [shards.read(*shards.locate(i)) for i in range(len(shards))]
    assert [raw.extension for raw in found] == ["mpg", "m4v", "3gp", "ts", "flv", "mkv", "mp4"]
    numbers = [clips.number_of(decode_video(raw.data, lambda t: [len(t) - 1])[0]) for raw in found]
    assert numbers == [0, 1, 2, 3, 4, 5, 3]
    for kind in ("mp4", "frames"):
        summary = make_shards(items, media, tmp_path / kind, Layout(kind))
        assert summary["failed"] == {}


def test_what_training_cannot_read_is_not_packed_as_a_success(tmp_path, clips):
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
    summary = make_shards(items, media, tmp_path / "out", Layout("original"))
    lines = (tmp_path / "out/failures.jsonl").read_text().splitlines()
    reasons = {line["id"]: (line["reason"], line["detail"]) for line in map(json.loads, lines)}
    assert summary["successes"] == 1
    assert {key: reason for key, (reason, _) in reasons.items()} == {
        "broken": "unreadable",
        "photo": "unreadable",
        "bare": "unsupported",
        "late": "bad window",
    }
    assert "convert it" in reasons["photo"][1] and "ffmpeg -i bare.mjpeg" in reasons["bare"][1]


def test_images_are_made_smaller(tmp_path, clips):
    clips.write_picture(tmp_path / "media/a.png", 33, size=(60, 80))
    item = Annotation("a", "a.png", ["c"], kind="image")
    make_shards([item], tmp_path / "media", tmp_path / "out", Layout("frames", short_side=30))
    shards = ShardSet(f"{tmp_path}/out/*.tar", "image")
    raw = shards.read(0, 0)
    assert raw.extension == "jpg" and (raw.metadata["width"], raw.metadata["height"]) == (40, 30)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--short-side", "0"], "--short-side is 0; give at least 2"),
        (["--fps", "0"], "--fps 0.0; give positive"),
        (["--quality", "100"], "--quality is 100"),
        (["--samples-per-shard", "0"], "--samples-per-shard is 0"),
        (["--shard-range", "3:3"], "--shard-range is 3:3"),
        (["--dataset", "msrvt"], "no data set 'msrvt'"),
        (["--split", "train"], "has no split 'train'"),
    ],
)
def test_wrong_arguments(tmp_path, clips, capsys, flags, message):
    clips.write_clip(tmp_path / "media/a.mp4", [1] * 3)
    (tmp_path / "list.csv").write_text("file,caption\na.mp4,c\n")
    arguments = [str(tmp_path / "list.csv"), str(tmp_path / "media"), "-o", str(tmp_path / "out")]
    assert main([*arguments, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*.tar"))


def test_nothing_usable_is_a_failure(tmp_path, capsys):
    (tmp_path / "media").mkdir()
    (tmp_path / "media/other.mp4").write_bytes(b"x")
    (tmp_path / "list.csv").write_text("file,caption\na.mp4,c\n")
    arguments = [str(tmp_path / "list.csv"), str(tmp_path / "media"), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--workers", "1"]) == 1
    assert "0 of 1 samples" in capsys.readouterr().out


def test_no_torch_is_needed():
    check = "import sys, data_prep.make_shards; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_a_cluster_makes_the_same_shards(tmp_path, clips, ray_cluster):
    for number in range(5):
        clips.write_clip(tmp_path / "media" / f"{number}.mp4", [number] * 4)
    rows = "\n".join(f"{number}.mp4,clip {number}" for number in range(5))
    (tmp_path / "list.csv").write_text(f"video,caption\n{rows}\n")
    arguments = [str(tmp_path / "list.csv"), str(tmp_path / "media"), "--samples-per-shard", "2"]
    for name, extra in (("here", ["--workers", "1"]), ("there", ["--ray"])):
        assert main([*arguments, "-o", str(tmp_path / name), *extra]) == 0
    assert len(shard_bytes(tmp_path / "there")) == 3
    assert shard_bytes(tmp_path / "there") == shard_bytes(tmp_path / "here")
