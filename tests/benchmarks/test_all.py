"""``python -m benchmarks`` runs one after the other, and says which bars were missed."""

import json
import os
import sys
from types import ModuleType

import pytest

from benchmarks import __main__ as everything
from benchmarks import report

forked = pytest.mark.skipif(sys.platform != "linux", reason="modules made here are not files")


@pytest.fixture
def made(monkeypatch):
    """Make a benchmark of a function of the folder for its results."""

    def make(name, work):
        def main():
            print("a page of many lines")
            work(report.options(f"benchmarks.{name}", "", "nothing"))

        module = ModuleType(f"benchmarks.{name}")
        module.main = main
        monkeypatch.setitem(sys.modules, module.__name__, module)

    monkeypatch.setattr(everything, "NAMES", ("fast", "broken", "slow"))
    return make


def writes(name, *bars):
    def work(options):
        rows = [bar._asdict() | {"met": bar.met} for bar in bars]
        result = json.dumps({"bars": rows, "process": os.getpid(), "short": options.short})
        options.output.mkdir(exist_ok=True)
        (options.output / f"{name}_cpu.json").write_text(result, "utf-8")

    return work


@forked
def test_all_run_alone_and_missed_bars_are_said(made, tmp_path, capfd):
    made("fast", writes("fast", report.Bar("times faster", 2.0, 3.0)))
    made("broken", lambda options: sys.exit(3))
    made("slow", writes("slow", report.Bar("times faster", 2.0, 1.0), report.Bar("s", 2, 1, True)))
    assert everything.main(["--short", "--output", str(tmp_path)]) == 1
    *lines, _head, _dashes, bar, end = capfd.readouterr().out.splitlines()
    assert [line.rpartition(", ")[0] for line in lines] == [
        "1 of 3, fast: 1 of 1 bars met",
        "2 of 3, broken: failed with status 3",
        "3 of 3, slow: 1 of 2 bars met",
    ]
    assert bar == "| times faster | at least 2.00 | 1.00 | NO |"
    assert end.endswith(f"s; the pages are in {tmp_path}")
    found = [json.loads((tmp_path / f"{n}_cpu.json").read_text()) for n in ("fast", "slow")]
    assert all(result["short"] for result in found)
    assert len({os.getpid(), *(result["process"] for result in found)}) == 3


@forked
def test_one_alone_that_has_no_bars(made, tmp_path, capfd):
    made("slow", writes("slow"))
    assert everything.main(["slow", "--output", str(tmp_path)]) == 0
    assert "1 of 1, slow: no bars, " in capfd.readouterr().out
    assert not json.loads((tmp_path / "slow_cpu.json").read_text())["short"]


def test_an_unknown_name_is_refused_with_those_that_exist(made, capsys):
    with pytest.raises(SystemExit):
        everything.main(["slow", "speed"])
    assert "no benchmark ['speed']; there are fast, broken, slow" in capsys.readouterr().err


def test_all_names_are_benchmarks(root):
    for name in everything.NAMES:
        assert (root / f"benchmarks/{name}.py").is_file()
