import json
from types import SimpleNamespace

import pytest
import torch

from tests.data.conftest import write_tar
from tests.data.videos import encode_video, moving_picture
from vmm import preflight
from vmm.cli import main
from vmm.models.videomamba import VideoMamba
from vmm.ops.backends import Backend


class Task(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.video_encoder = VideoMamba(
            embed_dim=32, depth=1, num_frames=2, image_size=32, d_state=4
        )
        self.teacher = torch.nn.Linear(1000, 1000)


def test_backends_are_compared_with_the_reference_and_a_wrong_one_is_named(monkeypatch):
    found = {check.name: check for check in preflight.kernel_checks("cpu")}
    assert {"scan chunked", "scan cpu", "convolution cpu"} <= found.keys()
    assert all(check.state == "ok" for check in found.values())

    def wrong(backend, x):
        return x.sin() if backend == "right" else x.sin() + 0.01 * x

    there = Backend("tests.test_preflight")
    checks = preflight._compare(
        "sine", {"right": there, "off": there}, "right", wrong, (torch.ones(3),), (0, 0)
    )
    (check,) = checks
    assert (check.name, check.state) == ("sine off", "broken")
    assert float(check.detail.split()[0]) > 0.01


def why_not(*inputs):
    """Nothing is against it: this module stands for a backend."""


@pytest.mark.slow
def test_two_processes_gather(monkeypatch):
    assert preflight.gather_check("gloo").state == "ok"
    monkeypatch.setattr(preflight, "_GATHER", preflight._GATHER.replace("[0, 1]", "[1, 0]"))
    check = preflight.gather_check("gloo")
    assert check.state == "broken" and check.detail.endswith("AssertionError")


def test_processes_that_do_not_meet_are_given_up(monkeypatch):
    monkeypatch.setattr(preflight, "_GATHER", "import time; time.sleep(60) # {backend}{device}")
    monkeypatch.setattr(preflight, "GATHER_TIMEOUT_S", 0.5)
    assert preflight.gather_check("gloo").detail.startswith("they did not gather in 0.5 s")


def test_shards_are_read_and_a_clip_of_each_set_decoded(tmp_path):
    clip = encode_video(moving_picture(4))
    good = [
        (f"{key}.{kind}", what) for key in "ab" for kind, what in (("mp4", clip), ("txt", b"x"))
    ]
    write_tar(tmp_path / "good.tar", good)
    write_tar(tmp_path / "cut.tar", [("a.mp4", clip[: len(clip) // 3]), ("a.txt", b"a")])
    patterns = [str(tmp_path / "good.tar"), str(tmp_path / "cut.tar"), str(tmp_path / "none.tar")]
    data = SimpleNamespace(patterns=lambda: [*patterns, "https://example.org/{0..9}.tar"])
    good, cut, missing, remote = preflight.shard_checks(data, Task())
    assert (good.state, good.name) == ("ok", f"shards {patterns[0]}")
    assert good.detail.startswith("2 samples (video) in 1, 0 not usable; 2 decoded")
    assert cut.state == "broken" and "cut.tar" in cut.name and "a: " in cut.detail
    assert missing.state == "broken" and "none.tar" in missing.detail
    assert (remote.state, remote.detail) == ("missing", "remote, not looked at")


def test_the_disk_must_take_three_checkpoints(tmp_path, monkeypatch):
    task = Task()
    weights = sum(p.numel() for p in task.video_encoder.parameters())
    for free, state in ((36 * weights + 1, "ok"), (36 * weights, "broken")):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path, usage=usage: usage)
        check = preflight.disk_check(task, tmp_path / "runs/stage2/version_0")
        assert check.state == state and str(tmp_path) in check.detail


def test_doctor_looks_at_the_recipe_too(root, demo_shards, monkeypatch, capsys):
    monkeypatch.chdir(root)
    monkeypatch.setattr(preflight, "kernel_checks", lambda device: [])
    ready = preflight.Check("two processes", "ok", "")
    monkeypatch.setattr(preflight, "gather_check", lambda backend: ready)
    monkeypatch.setattr("vmm.doctor.examine", list)
    monkeypatch.setattr("vmm.doctor._checked", lambda names: {})  # its imports: test_cli
    recipe = ["-c", "recipes/stage2_vtt.yaml", *demo_shards.options()]
    assert main(["doctor", "--json", "--deep", *recipe]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [f["state"] for f in found] == ["ok"] * len(found)
    names = [f["name"].split()[0] for f in found]
    assert names == ["two", "recipe", *["shards"] * 4, "disk"]
    assert main(["doctor", "--deep", *recipe, "--model.init_args.temperature=0"]) == 1
    assert "!!  recipe" in capsys.readouterr().out
    assert main(["doctor", "--deep"]) == 0
    assert "--  recipe" in capsys.readouterr().out
