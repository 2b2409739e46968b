import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from tests.shards import clips
from tests.shards.made import make, samples, shard_bytes
from vmm.data.annotations.record import Annotation
from vmm.data.index import scan_shard
from vmm.shards import making as module
from vmm.shards.command import main_make as main
from vmm.shards.samples import Layout


@pytest.fixture
def mixed(tmp_path):
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
        make(*mixed, out, layout, samples_per_shard=4, workers=workers)
    for part in ((2, 9), (0, 2)):
        make(*mixed, outs[2], layout, samples_per_shard=4, shard_range=part)
    first, *others = (shard_bytes(out) for out in outs)
    assert list(first) == ["00000.tar", "00001.tar", "00002.tar"]
    assert all(other == first for other in others)
    for name in ("summary.json", "failures.jsonl", "plan.json", "00001_stats.json"):
        assert len({(out / name).read_bytes() for out in outs}) == 1, name
    assert not list(tmp_path.glob("*/*.partial"))


@pytest.mark.parametrize("kind", ["original", "mp4", "frames"])
def test_captions_stay_with_their_media_and_failures_are_told(tmp_path, mixed, kind):
    summary = make(*mixed, tmp_path / "out", Layout(kind), samples_per_shard=5)
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
        ("k5", "00001", "000010000", "cut off"),
        ("k7", "00001", "000010002", "unreadable"),
    ]
    assert summary.failed == {"cut off": 1, "unreadable": 1, "missing": 1}
    assert (summary.count, summary.successes, summary.without_caption) == (12, 9, 1)
    assert asdict(summary) == json.loads((tmp_path / "out/summary.json").read_text())
    assert summary.bytes == sum(len(x) for x in shard_bytes(tmp_path / "out").values())


def test_a_finished_shard_is_never_made_again(tmp_path, mixed, monkeypatch):
    again = partial(make, *mixed, tmp_path / "out", samples_per_shard=4)
    again(shard_range=(1, 2))
    done = (tmp_path / "out/00001.tar").stat().st_mtime_ns
    killed = (".00000.tar.00ff00ff-1.partial", ".00002_stats.json.00ff00ff-1.partial")
    for left in (*killed, "00000.tar.elsewhere-1.partial"):  # the last of an older version
        (tmp_path / "out" / left).write_bytes(b"half of a file")
    foreign = tmp_path / "out/00000.mp4.partial"
    foreign.touch()
    called = []
    write_one = module.write_one
    monkeypatch.setattr(module, "write_one", lambda n, *a: (called.append(n), write_one(n, *a)))
    assert again().finished == 3 and called == [0, 2]
    assert (tmp_path / "out/00001.tar").stat().st_mtime_ns == done
    assert list((tmp_path / "out").glob("*.partial")) == [foreign]
    assert again().finished == 3 and called == [0, 2]

    (tmp_path / "out/00002.tar").unlink()
    left = tmp_path / "out/.00002.tar.00ff00ff-1.partial"
    left.write_bytes(b"half of a shard")
    monkeypatch.setattr(module, "write_one", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        again()
    assert not left.exists()  # before the work: repeated kills must not fill the disk
    with pytest.raises(ValueError, match="made with other layout; give another --out"):
        make(*mixed, tmp_path / "out", Layout(short_side=8), samples_per_shard=4)
    with pytest.raises(ValueError, match="other annotations; give"):
        make(mixed[0][1:], mixed[1], tmp_path / "out", Layout(), samples_per_shard=4)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/x.tar").touch()
    with pytest.raises(ValueError, match="holds other shards"):
        make(*mixed, tmp_path / "foreign", Layout())


def test_killed_at_any_moment_and_started_again(tmp_path):
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


def test_workers_end_with_the_run_that_started_them(tmp_path):
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


def test_a_cluster_makes_the_same_shards(tmp_path, ray_cluster):
    for number in range(5):
        clips.write_clip(tmp_path / "media" / f"{number}.mp4", [number] * 4)
    rows = "\n".join(f"{number}.mp4,clip {number}" for number in range(5))
    (tmp_path / "list.csv").write_text(f"video,caption\n{rows}\n")
    arguments = [str(tmp_path / "list.csv"), str(tmp_path / "media"), "--samples-per-shard", "2"]
    for name, extra in (("here", ["--workers", "1"]), ("there", ["--ray"])):
        assert main([*arguments, "-o", str(tmp_path / name), *extra]) == 0
    assert len(shard_bytes(tmp_path / "there")) == 3
    assert shard_bytes(tmp_path / "there") == shard_bytes(tmp_path / "here")
