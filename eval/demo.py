"""``make demo``: the whole system at a small size, from shards to a report, on two CPU cores.

Every step is a command that a user could type; this file only runs them in order, says how long
each took and writes that to ``demo/steps.json`` for the report.

    python -m eval.demo
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from vmm.command_line import CommandParser, run_to_status

RUNS = Path("runs/demo")
OUT = Path("demo")
SEARCH = f"""\
  vmm export {RUNS}/stage2 {RUNS}/encoder
  vmm encode data/demo/test-000000.tar -o {RUNS}/index --encoder {RUNS}/encoder
  vmm app {RUNS}/index"""


def fit_command(quick: bool, recipes: str, run: str, *options: str) -> str:
    """Give the command that trains ``runs/demo/RUN``.

    Args:
        quick: Two training steps only.
        recipes: A recipe and its overlays, below ``recipes/``, with spaces between.
        run: Name of the run.
        options: Further options.
    """
    files = [*recipes.split(), *(["overlays/debug.yaml"] if quick else [])]
    logger = f"--trainer.logger.init_args.name demo --trainer.logger.init_args.version {run}"
    return " ".join(["vmm fit", *(f"-c recipes/{file}" for file in files), logger, *options])


def _retrieval(run: str, out: str, *options: str) -> str:
    parts = ["vmm eval retrieval", f"--run {RUNS}/{run}", "--shards 'data/demo/test-*.tar'"]
    return " ".join([*parts, f"--out {OUT}/{out}", "--k 16", *options])


def steps(quick: bool) -> dict[str, str]:
    """The commands of the demo, in order, by what they do.

    Args:
        quick: A few clips and two training steps each, to see that everything fits together.
    """
    teacher = f"--model.init_args.teacher.init_args.pretrained {RUNS}/teacher/checkpoints/last.ckpt"
    runs = {"teacher": "teacher", "stage 1": "stage1", "stage 2": "stage2", "control": "frame_only"}
    results = {
        "VideoMamba": "videomamba",
        "VideoMamba, frames reversed": "reversed",
        "frame-only ViT": "frame_only",
    }
    few = " --train 64 --val 16 --test 16 --images 16" if quick else ""
    report = [
        f"vmm eval report --out {OUT}/report.html --steps {OUT}/steps.json",
        *(f"--run '{name}={RUNS}/{run}'" for name, run in runs.items()),
        *(f"--result '{name}={OUT}/{folder}'" for name, folder in results.items()),
    ]
    return {
        "clips and captions": f"vmm shards demo --out data/demo{few}",
        "teacher: a small CLIP on single frames": fit_command(
            quick, "demo/teacher.yaml", "teacher"
        ),
        "stage 1: masked video pretraining": fit_command(
            quick, "stage1_mvp.yaml", "stage1", teacher
        ),
        "stage 2: video-text training": fit_command(
            quick, "stage2_vtt.yaml", "stage2", f"--model.init_args.init_from {RUNS}/stage1"
        ),
        "control: a frame-only encoder": fit_command(
            quick,
            "demo/frame_only.yaml",
            "frame_only",
            f"--model.init_args.init_from {RUNS}/teacher",
        ),
        "retrieval": _retrieval("stage2", "videomamba", "--name VideoMamba"),
        "retrieval, frames reversed": _retrieval(
            "stage2", "reversed", "--frame-order reversed --name 'VideoMamba, frames reversed'"
        ),
        "retrieval, frame-only encoder": _retrieval(
            "frame_only", "frame_only", "--name 'frame-only ViT'"
        ),
        "report": " ".join(report),
    }


def _run(command: str) -> None:
    """Run one command of ``steps`` with this interpreter."""
    words = shlex.split(command)
    if words[0] == "python":
        words[0] = sys.executable
    else:
        words = [sys.executable, "-m", *words]
    subprocess.run(words, check=True)


def run_steps(todo: dict[str, str], record: Path) -> int:
    """Run commands in order, and write how long each took.

    Args:
        todo: What it does -> command.
        record: JSON file for ``vmm eval report``, there from the first step on.

    Returns:
        0, or the exit status of the command that failed.
    """
    begun = time.monotonic()
    done: list[dict[str, object]] = []
    for number, (name, command) in enumerate(todo.items(), start=1):
        passed = time.monotonic() - begun
        print(f"\n[{number}/{len(todo)}] {name}  ({passed:.0f} s so far)\n$ {command}", flush=True)
        record.write_text(json.dumps(done, indent=1))
        start = time.monotonic()
        try:
            _run(command)
        except subprocess.CalledProcessError as error:
            print(f"demo: step {name!r} failed with exit status {error.returncode}")
            return error.returncode
        seconds = round(time.monotonic() - start, 1)
        done.append({"name": name, "command": command, "seconds": seconds})
    record.write_text(json.dumps(done, indent=1))
    print(f"\ndone in {time.monotonic() - begun:.0f} s")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run all steps; a failed one ends the demo with its exit status."""
    parser = CommandParser(prog="python -m eval.demo", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two training steps each, few clips")
    options = parser.parse_args(argv)
    return run_to_status("eval.demo", lambda: _demo(options.quick))


def _demo(quick: bool) -> int:
    todo = steps(quick)
    for folder in (RUNS, OUT):  # results of an earlier demo must not pass for this one's
        shutil.rmtree(folder, ignore_errors=True)
    OUT.mkdir()
    code = run_steps(todo, OUT / "steps.json")
    if code == 0:
        print(f"open {OUT}/report.html")
        print(f"to search the test clips in a browser (needs the extra app):\n{SEARCH}")
    return code


if __name__ == "__main__":
    sys.exit(main())
