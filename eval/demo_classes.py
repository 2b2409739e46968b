"""``make demo-classes``: classification of motions, from clips to a page, on two CPU cores.

Twelve motions, of which each is another one backwards: a VideoMamba and a control that sees single
frames only are trained on them, and classify combinations that neither has seen.

    python -m eval.demo_classes
"""

from __future__ import annotations

import shutil
import sys

from eval.demo import OUT, RUNS, fit_command, run_steps
from vmm.command_line import CommandParser, run_to_status

_RUNS = {"VideoMamba": "classes", "frame-only ViT": "classes_frame_only"}
_DATA = "data/motions"
_RESULTS = OUT / "classes"


def steps(quick: bool) -> dict[str, str]:
    """The commands, in order, by what they do.

    Args:
        quick: A few clips and two training steps each, to see that everything fits together.
    """
    few = " --train 48 --val 12 --test 24" if quick else ""
    recipes = "classification.yaml demo/classes.yaml"

    def classify(model: str, folder: str, *options: str) -> str:
        parts = [f"vmm eval classification --run {RUNS}/{_RUNS[model]}"]
        parts += [f"--shards '{_DATA}/test-*.tar' --out {_RESULTS}/{folder} --batch-size 64"]
        return " ".join([*parts, *options])

    results = {
        "VideoMamba": "videomamba",
        "frame-only ViT": "frame_only",
        "VideoMamba, reversed": "reversed",
    }
    page = [
        f"python -m eval.twins --classes {_DATA}/classes.json --out {OUT}/classes.html",
        f"--steps {OUT}/classes_steps.json",
        *(f"--result '{name}={_RESULTS}/{folder}'" for name, folder in results.items()),
    ]
    return {
        "clips of twelve motions": f"python -m data_prep.motions --out {_DATA}{few}",
        "VideoMamba": fit_command(quick, recipes, _RUNS["VideoMamba"]),
        "control: a frame-only encoder": fit_command(
            quick, f"{recipes} demo/classes_frame_only.yaml", _RUNS["frame-only ViT"]
        ),
        "classification": classify("VideoMamba", "videomamba", "--name VideoMamba"),
        "classification, frames reversed": classify(
            "VideoMamba", "reversed",
            "--frame-order reversed --name 'VideoMamba, reversed'",
        ),
        "classification, frame-only encoder": classify(
            "frame-only ViT", "frame_only", "--name 'frame-only ViT'"
        ),
        "page": " ".join(page),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run all steps; a failed one ends with its exit status."""
    parser = CommandParser(prog="python -m eval.demo_classes", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two training steps each, few clips")
    options = parser.parse_args(argv)
    return run_to_status("eval.demo_classes", lambda: _demo(options.quick))


def _demo(quick: bool) -> int:
    runs = [RUNS / name for name in _RUNS.values()]
    for folder in (*runs, _RESULTS):  # those of an earlier call must not pass for this one's
        shutil.rmtree(folder, ignore_errors=True)
    _RESULTS.mkdir(parents=True)
    code = run_steps(steps(quick), OUT / "classes_steps.json")
    if code == 0:
        print(f"open {OUT}/classes.html")
    return code


if __name__ == "__main__":
    sys.exit(main())
