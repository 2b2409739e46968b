import json
import subprocess
import sys

import pytest
import torch

from benchmarks import common, gpu, scan_report, step
from benchmarks.gpu import Part, Summary, run_all

WRITES = """
import json, pathlib, sys
bars = [{"met": True}, {"met": False}]
rows = [
    {"what": "forward", "width": "Ti", "dtype": "float32", "variant": name, "length": n, "ms": ms}
    for n in (1, 9) for name, ms in (("vmm triton", 2.0 - n / 9), ("PyTorch", 1.5))
]
path = pathlib.Path(sys.argv[1], "conv_some-gpu_2026-01-01_short.json")
path.write_text(json.dumps({"bars": bars, "rows": rows}))
"""
COUNTS = "import sys; open(sys.argv[1] + '/runs', 'a').write(sys.argv[2]); {}"


def part(name, code="", limit_s=60.0):
    program = COUNTS.replace("{}", code).replace("{", "{{").replace("}", "}}")
    return Part(name, "a test", ("-c", program, "{output}", name[0]), limit_s)


def runs(folder):
    """The first letters of the parts, in the order in which they ran."""
    return (folder / "runs").read_text("utf-8")


def told(folder):
    (path,) = folder.glob("gpu_*.json")
    return {row["name"]: row for row in json.loads(path.read_text("utf-8"))["parts"]}


@pytest.fixture
def go(tmp_path):
    def run(*parts, minutes=10.0, code="abc", again=False):
        return run_all(parts, Summary(tmp_path, "Some GPU", code, again), tmp_path, minutes)

    return run


def test_what_fails_does_not_stop_what_follows(go, tmp_path, capsys):
    bad, slow = "print('one'); raise SystemExit('no memory')", "import time; time.sleep(60)"
    parts = part("bad", bad), part("slow", slow, 2.0), part("killed", "import os; os.abort()")
    assert go(*parts, part("good")) == 1
    rows = told(tmp_path)
    assert {name: row["status"] for name, row in rows.items()} == {
        "bad": "failed", "slow": "failed", "killed": "failed", "good": "passed",
    }  # fmt: skip
    assert rows["bad"]["why"] == "status 1; no memory"
    assert rows["slow"]["why"] == "took longer than 2 s" and rows["slow"]["seconds"] < 30
    assert rows["killed"]["why"].startswith("ended by signal 6")
    assert "  one\n  no memory" in capsys.readouterr().out
    (page,) = tmp_path.glob("gpu_some-gpu_*.md")
    assert "| slow | failed | took longer than 2 s |" in page.read_text("utf-8")


def test_a_part_over_its_time_leaves_no_process(go, tmp_path):
    child = "import subprocess as s, time; s.Popen(['sleep', '300.125']); time.sleep(60)"
    go(part("slow", child, 3.0))
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "sleep 300.125" not in running


def test_a_stopped_run_goes_on_with_what_has_not_passed(go, tmp_path):
    assert go(part("a"), part("b", "raise SystemExit(3)"), part("c"), minutes=10) == 1
    assert go(part("a"), part("b"), part("c"), part("d")) == 0
    assert runs(tmp_path) == "abcdb"
    assert go(part("a"), part("b"), part("c"), part("d")) == 0
    assert runs(tmp_path) == "abcdb"


def test_other_code_or_again_begins_anew(go, tmp_path):
    go(part("a"))
    go(part("a"), code="def")
    go(part("a"), code="def", again=True)
    assert runs(tmp_path) == "aaa"


def test_after_its_minutes_no_part_begins_until_the_next_time(go, tmp_path, capsys):
    assert go(part("a"), part("b"), minutes=0.0) == 1
    assert told(tmp_path)["b"]["status"] == "not run"
    assert "0 minutes were over" in told(tmp_path)["b"]["why"]
    assert "left are 2 of 2: a, b; the same command goes on" in capsys.readouterr().out
    assert go(part("a"), part("b")) == 0
    assert runs(tmp_path) == "ab"
    assert "left are" not in capsys.readouterr().out


def test_a_part_that_the_minutes_stop_has_not_failed(go, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "_LEAST_S", 0.1)
    slow = part("slow", "import time; time.sleep(60)")
    assert go(part("a"), slow, part("c"), minutes=3 / 60) == 1
    row = told(tmp_path)["slow"]
    assert row["status"] == "not run" and row["seconds"] < 30
    assert row["why"].endswith("when the minutes for all were over")
    assert told(tmp_path)["c"]["status"] == "not run"
    assert "left are 2 of 3: slow, c" in capsys.readouterr().out
    assert go(part("a"), part("slow"), part("c")) == 0
    assert runs(tmp_path) == "assc"


def test_a_part_of_its_own_limit_has_failed_whatever_is_left(go, tmp_path):
    go(part("slow", "import time; time.sleep(60)", 1.0))
    assert told(tmp_path)["slow"]["status"] == "failed"


def test_what_failed_is_tried_again_after_all_that_has_not_run(go, tmp_path):
    bad = part("bad", "raise SystemExit(3)")
    go(bad, part("c"), minutes=10)
    assert go(bad, part("c"), part("d"), part("e")) == 1
    assert runs(tmp_path) == "bc" + "deb"
    go(bad, minutes=0.0)  # no time is left to try it: it stays what it is
    assert told(tmp_path)["bad"]["status"] == "failed"


def test_the_kernels_come_before_all_that_is_made_of_them():
    names = [known.name for known in gpu.PARTS]
    assert names[:2] == ["kernels", "roofline"]
    assert set(names) >= {"tests", "scan", "step", "encoder", "conv", "compiling", "block"}


def test_results_bars_and_the_order_of_backends_are_in_the_summary(go, tmp_path):
    program = WRITES.replace("{", "{{").replace("}", "}}")
    assert go(Part("conv", "writes", ("-c", program, "{output}"))) == 0
    row = told(tmp_path)["conv"]
    assert row["files"] == ["conv_some-gpu_2026-01-01_short.json"]
    assert (row["bars_met"], row["bars"]) == (1, 2)
    (path,) = tmp_path.glob("gpu_*.json")
    (first,) = json.loads(path.read_text("utf-8"))["fastest"]
    assert first["tokens"] == 9 and first["order"] == "vmm triton 1.00 ms, PyTorch 1.50 ms"
    assert "vmm triton 1.00 ms, PyTorch 1.50 ms" in path.with_suffix(".md").read_text("utf-8")


@pytest.mark.parametrize(
    ("code", "said", "status"),
    [
        (0, "== 2 passed, 1 skipped in 3 s ==", "passed"),
        (0, "== 2 skipped in 3 s ==", "skipped"),
        (1, "== 1 failed, 2 passed in 3 s ==", "failed"),
        (5, "== no tests ran in 3 s ==", "failed"),
    ],
)
def test_tests_that_all_had_to_be_skipped_have_not_passed(code, said, status):
    assert gpu._judge(gpu.PARTS[0], code, [said])[0] == status


def test_parts_are_modules_that_exist(root):
    for known in gpu.PARTS:
        name = known.command[1]
        assert name == "pytest" or (root / f"{name.replace('.', '/')}.py").is_file()
    assert len({known.name for known in gpu.PARTS}) == len(gpu.PARTS)


@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_pages_tell_of_the_device_that_was_measured(place, monkeypatch):
    monkeypatch.setattr(common, "device", lambda: torch.device(place))
    monkeypatch.setattr(scan_report, "tables", lambda rows: {})
    monkeypatch.setattr(scan_report, "bars", lambda rows: [])
    scan = scan_report.build([], [], {}).text
    assert ("one CPU thread" in step.text()) == ("EPYC" in scan) == (place == "cpu")
    assert ("Seconds of a GPU" in step.text()) == (place == "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_sentence(root, tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert "benchmarks.gpu: error: PyTorch finds no GPU here" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and list(tmp_path.iterdir()) == []
