import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.data import videos
from vmm.data.decode import DecodeError, decode_parts, decode_video
from vmm.data.isolation import IsolatedDecoder, own_decoder
from vmm.data.pictures import decode_image

# A child whose decoder misbehaves on some files.
MISBEHAVING = """
import os, signal, sys, time
from vmm.data.decode import decode_parts, decode_video
from vmm.data.isolation import serve
def video(data, choose, decoder):
    if data == b"HANG": time.sleep(60)
    if data == b"STOP": os.kill(os.getpid(), signal.SIGSTOP)
    if data == b"SEGV": os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"EXIT": os._exit(3)
    if data == b"BUG": 1 / 0
    return decode_video(data, choose, decoder=decoder)
def parts(video, choose):
    for number, frames in enumerate(decode_parts(video, choose)):
        if number == 2: os.kill(os.getpid(), signal.SIGSEGV)
        yield frames
serve(video, parts=parts if "VMM_TEST_CRASH" in os.environ else decode_parts)
"""


@pytest.fixture
def decoder():
    made = IsolatedDecoder(timeout=3.0, program=MISBEHAVING)
    yield made
    made.close()


def first_and_last(times):
    return [0, len(times) - 1]


def child(decoder):
    return decoder._child.pid


@pytest.mark.parametrize("kind", ["h264", "vp8", "gif", "h264 turned by 90"])
def test_frames_are_the_same_as_in_this_process(decoder, kind):
    data = videos.make(kind)
    seen = []
    frames = decoder.video(data, lambda t: (seen.append(t), first_and_last(t))[1])
    expected = decode_video(data, lambda t: (seen.append(t), first_and_last(t))[1])
    assert frames.dtype == np.uint8 and np.array_equal(frames, expected)
    assert np.array_equal(*seen)


def in_threes(times):
    return [list(range(i, min(i + 3, len(times)))) for i in range(len(times) - 2)]


@pytest.mark.parametrize("kind", ["h264", "vp8", "gif", "h264 turned by 90"])
def test_parts_are_the_same_as_in_this_process(decoder, kind, tmp_path):
    content = videos.make(kind)
    (tmp_path / "video").write_bytes(content)
    expected = list(decode_parts(content, in_threes))
    for video in (content, tmp_path / "video"):
        parts = list(decoder.parts(video, in_threes))
        assert len(parts) == len(expected) > 2
        assert all(map(np.array_equal, parts, expected))
    before = child(decoder)
    with pytest.raises(FileNotFoundError):
        list(decoder.parts(tmp_path / "gone", in_threes))
    with pytest.raises(DecodeError, match="empty"):
        list(decoder.parts(b"", in_threes))
    assert child(decoder) == before
    rest = decoder.parts(content, in_threes)
    assert np.array_equal(next(rest), expected[0])
    rest.close()  # nobody wants the others
    assert len(decoder.video(content, first_and_last)) == 2


def test_the_parts_before_a_crash_are_there(decoder, monkeypatch):
    monkeypatch.setenv("VMM_TEST_CRASH", "1")
    found = []
    with pytest.raises(DecodeError, match=f"signal {signal.SIGSEGV:d}"):
        for frames in decoder.parts(videos.make("h264"), in_threes):
            found.append(frames)
    assert all(map(np.array_equal, found, decode_parts(videos.make("h264"), in_threes)))
    assert len(found) == 2


def test_one_child_serves_many_files_of_any_size(decoder, tools):
    large = tools.encode_video(tools.moving_picture(3, 300, 400))
    expected = [decode_video(d, first_and_last) for d in (large, videos.make("h264"))]
    for _ in range(3):
        assert np.array_equal(decoder.video(large, first_and_last), expected[0])
        first = child(decoder)
        assert np.array_equal(decoder.video(videos.make("h264"), first_and_last), expected[1])
        assert child(decoder) == first
    assert os.getsid(first) != os.getsid(0)  # what stops the run is no signal to the child
    jpeg = tools.coded_jpeg(9)
    assert np.array_equal(decoder.image(jpeg), decode_image(jpeg))
    assert child(decoder) == first


def test_what_is_wrong_with_a_file_comes_back(decoder):
    for call in (lambda: decoder.video(b"nothing", first_and_last), lambda: decoder.image(b"")):
        with pytest.raises(DecodeError) as caught:
            call()
        assert caught.value.reason in ("unreadable", "empty")
    before = child(decoder)
    decoder.video(videos.make("h264"), first_and_last)
    assert child(decoder) == before


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"HANG", "hung", "no answer within 3 s"),
        (b"STOP", "hung", "no answer within 3 s"),
        (b"SEGV", "crashed", f"signal {signal.SIGSEGV:d}"),
        (b"EXIT", "crashed", "exit code 3"),
    ],
)
def test_a_lost_child_costs_one_file(decoder, data, reason, detail):
    good = videos.make("h264")
    expected = decoder.video(good, first_and_last)
    before = decoder._child
    began = time.monotonic()
    with pytest.raises(DecodeError, match=detail) as caught:
        decoder.video(data, first_and_last)
    assert caught.value.reason == reason
    assert time.monotonic() - began < 8
    assert before.poll() is not None  # the hanging one, too, is gone
    assert np.array_equal(decoder.video(good, first_and_last), expected)
    assert decoder._child is not before


def test_a_child_killed_between_two_files_costs_none(decoder):
    data = videos.make("h264")
    expected = decoder.video(data, first_and_last)
    os.kill(child(decoder), signal.SIGKILL)
    decoder._child.wait()
    assert np.array_equal(decoder.video(data, first_and_last), expected)


def test_a_mistake_of_ours_stops_the_run_with_its_trace(decoder):
    with pytest.raises(RuntimeError, match=r"(?s)mistake.*Traceback.*ZeroDivisionError") as caught:
        decoder.video(b"BUG", first_and_last)
    assert not isinstance(caught.value, DecodeError)
    assert len(decoder.video(videos.make("h264"), first_and_last)) == 2


def test_a_child_that_cannot_start_is_no_bad_file():
    decoder = IsolatedDecoder(program="import nothing_of_this_name")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="did not start: exit code 1; stderr says why"):
            decoder.video(videos.make("h264"), first_and_last)
        assert decoder._child is None


def test_a_mistake_in_choosing_is_the_callers(decoder):
    def choose(times):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        decoder.video(videos.make("h264"), choose)
    assert len(decoder.video(videos.make("h264"), first_and_last)) == 2


class Videos(Dataset):
    def __getitem__(self, index):
        decoder = own_decoder()
        frames = decoder.video(videos.make("h264"), first_and_last)
        return torch.from_numpy(frames), child(decoder), os.getpid()

    def __len__(self):
        return 6


def test_every_worker_of_a_loader_has_its_own_child():
    own_decoder().video(videos.make("h264"), first_and_last)
    mine = child(own_decoder())
    expected = torch.from_numpy(decode_video(videos.make("h264"), first_and_last))
    children = {}
    for frames, pid, worker in DataLoader(Videos(), batch_size=None, num_workers=2, timeout=60):
        assert torch.equal(frames, expected)
        children.setdefault(worker, set()).add(pid)
    assert len(children) == 2 and all(len(pids) == 1 for pids in children.values())
    assert len(set.union({mine}, *children.values())) == 3
    assert len(own_decoder().video(videos.make("h264"), first_and_last)) == 2
    assert child(own_decoder()) == mine


def test_the_child_ends_with_its_parent(tmp_path):
    path = tmp_path / "video.mp4"
    path.write_bytes(videos.make("h264"))
    program = (
        "import os, signal, sys\n"
        "from vmm.data.isolation import own_decoder\n"
        "own_decoder().video(open(sys.argv[1], 'rb').read(), lambda t: [0])\n"
        "print(own_decoder()._child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, timeout=60, check=False
    )
    pid = int(result.stdout)
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as file:
                ended = file.read().split()[2] == "Z"
        except FileNotFoundError:
            ended = True
        if ended:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} outlived its parent")


def test_the_child_does_not_load_torch():
    program = "import sys, vmm.data.isolation; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "False"
