import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.data.videos import encode_video, moving_picture
from vmm.search import watch
from vmm.search.sources import Source
from vmm.search.watch import Settled, watch_videos


class Stop(Exception):
    pass


@pytest.fixture
def watched(videos, new_index, encoder, monkeypatch):
    """Watch while steps happen between the looks; gives reports, warnings and the index."""

    def run(*steps, inputs=None):
        reports, warnings, left = [], [], list(steps)

        def between(seconds):
            assert seconds == 7
            if not left:
                raise Stop
            left.pop(0)()

        monkeypatch.setattr(watch.time, "sleep", between)
        with pytest.raises(Stop):
            watch_videos(
                new_index(), encoder, inputs or [videos], reports.append, warnings.append, every=7
            )
        return reports, warnings, new_index()

    return run


def nothing():
    pass


def test_sigterm_means_what_it_did_when_the_watch_has_ended(watched):
    before = signal.getsignal(signal.SIGTERM)
    watched(lambda: None if signal.getsignal(signal.SIGTERM) is not before else pytest.fail())
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_comes_is_encoded_when_it_is_whole(watched, videos):
    data = encode_video(moving_picture(10, seed=9), rate=10)
    path = videos / "new.mp4"

    def write(share):
        return lambda: path.write_bytes(data[: int(len(data) * share)])

    reports, warnings, index = watched(
        nothing, write(0.3), write(0.6), write(1), nothing, lambda: path.rename(videos / "n.mp4"),
        nothing, (videos / "b.mkv").unlink,
    )  # fmt: skip
    told = [(c.encoded, c.reused, c.removed) for c in reports]
    assert told == [(3, 0, 0), (1, 0, 0), (0, 1, 1), (0, 0, 1)]
    assert not warnings and not index.problems
    assert {s.path.name for s in index.videos} == {"a.mp4", "c.AVI", "n.mp4"}


def test_a_drive_that_goes_away_and_comes_back_loses_nothing(watched, videos, tmp_path):
    def away():
        videos.rename(tmp_path / "away")

    def back():
        shutil.rmtree(videos, ignore_errors=True)
        (tmp_path / "away").rename(videos)

    reports, warnings, index = watched(nothing, away, nothing, videos.mkdir, nothing, back)
    assert [c.encoded for c in reports] == [3] and len(index.videos) == 3
    assert len(warnings) == 2 and "there is no" in warnings[0]
    assert "waiting for it" in warnings[1] and reports[0].removed == 0


def test_settled_is_what_was_the_same_before(tmp_path):
    settled, path = Settled(), tmp_path / "a.mp4"
    source = Source(path)
    assert not settled(source)
    path.write_bytes(b"1")
    assert not settled(source) and settled(source)
    path.write_bytes(b"12")
    assert not settled(source)
    os.utime(path, (1, 1))
    assert not settled(source) and settled(source)


@pytest.mark.parametrize(
    ("number", "status", "by"), [(signal.SIGTERM, 75, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]
)
@pytest.mark.slow
def test_signals_end_it_in_one_line(videos, encoder_folder, tmp_path, root, number, status, by):
    command = [sys.executable, "-m", "vmm", "encode", str(videos), "-o", str(tmp_path / "index"),
               "--encoder", str(encoder_folder), "--window", "1", "--stride", "0.5",
               "--watch", "0.1"]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip  # a shell's background jobs ignore Ctrl-C
    try:
        assert "watching every 0.1 s" in process.stdout.readline()
        said = process.stdout.readline()
        assert "3 videos encoded" in said and "10 moments of 3 videos" in said
        time.sleep(0.2)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status
    assert (
        err.strip().startswith(f"vmm: stopped by {by}; the index keeps") and "Traceback" not in err
    )
    assert len(err.strip().splitlines()) == 1 and not out
