"""All that a GPU has to show, part by part: ``make gpu``, or ``python -m benchmarks.gpu``.

Tests and benchmarks that need a GPU, those first that say most, each as a process of its own with a
time limit. All together have one, too: what it leaves is named, and the same command goes on there.
What fails does not stop what follows, and is tried again after all that has not run. The summary is
written after every part.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import common, report
from vmm.command_line import MISTAKE, run_to_status
from vmm.text_output import complain

ROOT = Path(__file__).parent.parent
PASSED, FAILED, SKIPPED, NOT_RUN = "passed", "failed", "skipped", "not run"
PEERS = ("mamba_ssm", "causal_conv1d")
_TEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
_LINES = 15
"""The last of a part's output, kept where it failed."""
_LEAST_S = 20.0
"""No part begins with less left: importing PyTorch takes a good part of it."""


class Part(NamedTuple):
    """One process.

    Args:
        name: In the summary.
        what: It shows.
        command: Arguments of Python; ``{output}`` is the folder of the results.
        limit_s: It is stopped after so many seconds.
    """

    name: str
    what: str
    command: tuple[str, ...]
    limit_s: float = 180.0


def _benchmark(name: str, what: str) -> Part:
    command = ("-m", f"benchmarks.{name}", "--short", "--output", "{output}")
    return Part(name, what, command)


# The right numbers, then how near the kernels are to what the card could do, and so on: time on a
# card is dear, and the first minutes should say most.
PARTS = (
    Part("kernels", "the Triton kernels are right", (*_TEST, "-k", "triton", "tests/ops")),
    _benchmark("roofline", "time of every kernel beside its bytes and operations"),
    _benchmark("scan", "selective scan, mamba-ssm, PyTorch"),
    _benchmark("step", "whole training steps, and their products and scans alone"),
    _benchmark("encoder", "whole encoders, FlashAttention ViT; memory against joint attention"),
    _benchmark("conv", "causal convolution, causal-conv1d, PyTorch"),
    Part("tests", "tests that need a GPU", (*_TEST, "-m", "gpu", "tests")),
    _benchmark("compiling", "forward and backward of VideoMamba-M, compiled or not"),
    _benchmark("block", "one B-Mamba block"),
    _benchmark("long_video", "long videos and films"),
)


class Outcome(NamedTuple):
    """What became of a part.

    Args:
        name: Of the part.
        status: passed, failed, skipped or not run.
        why: One line: the reason, or what was counted.
        seconds: On the clock.
        files: Names of the result files.
        bars_met: Promises that were kept.
        bars: Promises.
    """

    name: str
    status: str
    why: str
    seconds: float = 0.0
    files: tuple[str, ...] = ()
    bars_met: int = 0
    bars: int = 0


def run_part(part: Part, output: Path, left_s: float = math.inf) -> Outcome:
    """Run a part, stop it at its limit, and say what became of it. Its output is kept in a log.

    Args:
        part: The part.
        output: Folder.
        left_s: Seconds that are left for all; a part that they stop has not failed.
    """
    log = output / f"gpu_{part.name}.log"
    known = _results(output)
    command = [sys.executable, *(word.format(output=output) for word in part.command)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": paths},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(min(part.limit_s, left_s))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    said = [x for x in log.read_text("utf-8", errors="replace").splitlines() if x.strip()]
    status, why = _judge(part, code, said)
    if code is None and left_s < part.limit_s:
        status, why = NOT_RUN, f"stopped after {left_s:.0f} s, when the minutes for all were over"
    changed = {path: at for path, at in _results(output).items() if known.get(path) != at}
    bars = [bar for path in changed for bar in json.loads(path.read_text("utf-8"))["bars"]]
    files = tuple(sorted(path.name for path in changed))
    seconds = round(time.monotonic() - began, 1)
    return Outcome(part.name, status, why, seconds, files, sum(b["met"] for b in bars), len(bars))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a part that still runs, with its own processes."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _judge(part: Part, code: int | None, said: list[str]) -> tuple[str, str]:
    last = said[-1].strip("= ") if said else "it printed nothing"
    if code is None:
        return FAILED, f"took longer than {part.limit_s:g} s"
    if code < 0:
        return FAILED, f"ended by signal {-code}; {last}"
    if code > 0:
        return FAILED, f"status {code}; {last}"
    if "pytest" not in part.command:
        return PASSED, "ran to its end"
    counted = re.search(r"\b(\d+) passed", last)
    return (PASSED if counted else SKIPPED), last


def _results(output: Path) -> dict[Path, int]:
    """Return the benchmarks' own result files and when they were written."""
    found = (path for path in output.glob("*.json") if not path.name.startswith("gpu_"))
    return {path: path.stat().st_mtime_ns for path in found}


class Summary:
    """What became of all parts so far, in a file that a later run goes on with.

    Args:
        output: Folder.
        gpu: Name of the device.
        code: What is measured: the commit.
        again: Begin anew, whatever is there.
    """

    def __init__(self, output: Path, gpu: str, code: str, again: bool = False) -> None:
        slug = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
        self.facts = {"date": datetime.date.today().isoformat(), "gpu": gpu, "code": code}
        self.outcomes: dict[str, Outcome] = {}
        before = sorted(output.glob(f"gpu_{slug}_????-??-??.json"))
        self.page = output / f"gpu_{slug}_{self.facts['date']}.md"
        found = json.loads(before[-1].read_text("utf-8")) if before and not again else {}
        if found.get("code") == code:
            self.page, self.facts["date"] = before[-1].with_suffix(".md"), found["date"]
            outcomes = [Outcome(**row | {"files": tuple(row["files"])}) for row in found["parts"]]
            self.outcomes = {x.name: x for x in outcomes}

    def done(self, name: str) -> bool:
        """Whether a part needs no other run."""
        return name in self.outcomes and self.outcomes[name].status in (PASSED, SKIPPED)

    def failed(self, name: str) -> bool:
        """Whether a part ran and did not pass."""
        return name in self.outcomes and self.outcomes[name].status == FAILED

    def write(self) -> None:
        """Write numbers (JSON) and page (Markdown); a kill leaves the old or the new file."""
        machine, packages = common.hardware(), common.versions((*common.PACKAGES, *PEERS))
        missing = [x for x in PEERS if x not in packages]
        notes = [f"{x} is not installed: it was not compared with" for x in missing]
        rows = [x._asdict() for x in self.outcomes.values()]
        first = fastest(self.page.parent, self.outcomes.values())
        result = self.facts | {"hardware": machine, "versions": packages, "notes": notes}
        result |= {"parts": rows, "fastest": first}
        where = ", ".join(f"{k} {v}" for k, v in (machine | packages).items())
        lines = [_line(x) for x in self.outcomes.values()]
        text = [f"# All parts on {self.facts['gpu']}, {self.facts['date']}", f"{where}."]
        text.append(report.table(["part", "", "why", "time", "bars met", "results"], lines))
        if first:
            head = list(first[0])
            text += ["## Fastest at the longest sequence"]
            text.append(report.table(head, [[str(row[key]) for key in head] for row in first]))
        text += ["\n".join(f"- {note}" for note in notes)] if notes else []
        _replace(self.page.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
        _replace(self.page, "\n\n".join(text) + "\n")


def _line(x: Outcome) -> list[str]:
    bars = f"{x.bars_met} of {x.bars}" if x.bars else "-"
    why = x.why.replace("|", "/")
    return [x.name, x.status, why, f"{x.seconds:.0f} s", bars, ", ".join(x.files) or "-"]


def _replace(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(text, "utf-8")
    new.replace(path)


def fastest(output: Path, outcomes: Any) -> list[dict[str, Any]]:
    """Return the order of implementations by time, for each case of scan and convolution."""
    found = []
    for outcome in outcomes:
        if outcome.name not in ("scan", "conv"):
            continue
        rows = [
            row
            for name in outcome.files
            if (output / name).exists()
            for row in json.loads((output / name).read_text("utf-8"))["rows"]
            if "ms" in row and "cop" not in row["variant"] and "layers" not in row["variant"]
        ]
        cases: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in rows:
            case = row.get("task", "both directions"), row["what"], str(row["width"]), row["dtype"]
            cases.setdefault(case, []).append(row)
        for case, same in cases.items():
            longest = max(r["length"] for r in same)
            order = sorted((r["ms"], r["variant"]) for r in same if r["length"] == longest)
            told = ", ".join(f"{name} {report.number(ms)} ms" for ms, name in order)
            names = ("task", "what", "width", "dtype")
            row = {"part": outcome.name, **dict(zip(names, case, strict=True))}
            found.append(row | {"tokens": longest, "order": told})
    return found


def run_all(parts: Sequence[Part], summary: Summary, output: Path, minutes: float) -> int:
    """Run the parts that are not done, those first that have never failed.

    Args:
        parts: All of them, in the order of their worth.
        summary: Knows what is done.
        output: Folder.
        minutes: For all; a part that is running then is stopped, and not failed.

    Returns:
        0 if all passed or had to be skipped, else 1.
    """
    end = time.monotonic() + 60 * minutes
    for part in sorted(parts, key=lambda part: summary.failed(part.name)):
        if summary.done(part.name):
            print(f"{part.name}: done before", flush=True)
            continue
        left_s = end - time.monotonic()
        if left_s < min(_LEAST_S, part.limit_s):
            if not summary.failed(part.name):
                why = f"{minutes:g} minutes were over"
                summary.outcomes[part.name] = Outcome(part.name, NOT_RUN, why)
                summary.write()
            continue
        print(f"{part.name}: {part.what} ...", flush=True)
        outcome = run_part(part, output, left_s)
        summary.outcomes[part.name] = outcome
        summary.write()
        print(f"{part.name}: {outcome.status}, {outcome.why}", flush=True)
        if outcome.status == FAILED:
            log = output / f"gpu_{part.name}.log"
            print(f"  the last of {log}:", flush=True)
            for line in log.read_text("utf-8", errors="replace").splitlines()[-_LINES:]:
                print(f"  {line}", flush=True)
    print(f"see {summary.page}")
    left = [part.name for part in parts if not summary.done(part.name)]
    if left:
        print(f"left are {len(left)} of {len(parts)}: {', '.join(left)}; the same command goes on")
    return int(bool(left))


def code_version() -> str:
    """Return the commit, marked where files differ from it; empty where git does not know."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _run(given: argparse.Namespace) -> int:
    if not torch.cuda.is_available():
        complain(
            "benchmarks.gpu: error: PyTorch finds no GPU here, and everything in this command "
            "needs one; what can be said without one: python -m benchmarks.kernels"
        )
        return MISTAKE
    given.output.mkdir(parents=True, exist_ok=True)
    output = given.output.resolve()
    summary = Summary(output, torch.cuda.get_device_name(), code_version(), given.again)
    return run_all(PARTS, summary, output, given.minutes)


def main() -> int:
    """Run what is not done; 0 if all passed, 1 if a part failed or was left, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all parts together")
    parser.add_argument("--again", action="store_true", help="begin anew, also what has passed")
    given = parser.parse_args()
    kept = "parts that have passed are kept; the same command goes on"
    return run_to_status("benchmarks.gpu", lambda: _run(given), kept)


if __name__ == "__main__":
    sys.exit(main())
