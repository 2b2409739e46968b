"""``make demo-qa``: questions about long videos, and when what is shown, on two CPU cores.

Goes on where ``make demo`` ends: its stage-2 model is trained on films of six events, and answers
questions about unseen ones, and about films twice as long, of which it has seen none; then it finds
when each event of unseen films is shown, by itself and with a head that is trained for it.

    python -m eval.demo_qa
"""

from __future__ import annotations

import shutil
import sys

from eval.demo import OUT, RUNS, fit_command, run_steps
from vmm.command_line import CommandParser, run_to_status

_RUN = "long_videos"
_START = RUNS / "stage2"


def steps(quick: bool) -> dict[str, str]:
    """The commands, in order, by what they do.

    Args:
        quick: A few films and two training steps, to see that everything fits together.
    """
    few = " --train 6 --val 3 --test 3 --long 3" if quick else ""

    def ask(split: str, frames: int, name: str) -> str:
        return (
            f"vmm eval long-video-qa --run {RUNS}/{_RUN} --dataset questions "
            f"--annotations data/films/{split}-questions.json --media 'data/films/{split}-*.tar' "
            f"--num-frames {frames} --out {OUT}/qa_{split} --name '{name}'"
        )

    return {
        "films and questions": f"python -m data_prep.long_videos --out data/films{few}",
        "training on films": fit_command(
            quick,
            "stage2_vtt.yaml overlays/long_videos.yaml",
            _RUN,
            f"--model.init_args.init_from {_START}",
        ),
        "questions about unseen films": ask("test", 6, "VideoMamba"),
        "questions about films twice as long": ask("long", 12, "VideoMamba, twice the length"),
        "moments of unseen films": (
            f"vmm eval grounding --run {RUNS}/{_RUN} --dataset moments --name VideoMamba "
            "--annotations data/films/test-moments.jsonl --media 'data/films/test-*.tar' "
            "--train-annotations data/films/train-moments.jsonl "
            f"--train-media 'data/films/train-*.tar' --head {OUT}/moments/head --out {OUT}/moments"
        ),
    }


def main(argv: list[str] | None = None) -> int:
    """Run all steps; a failed one ends with its exit status."""
    parser = CommandParser(prog="python -m eval.demo_qa", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two training steps, few films")
    options = parser.parse_args(argv)
    return run_to_status("eval.demo_qa", lambda: _demo(options.quick))


def _demo(quick: bool) -> int:
    if not (_START / "config.yaml").is_file():
        raise ValueError(f"there is no {_START} to start from; run `make demo` first")
    results = [OUT / name for name in ("qa_test", "qa_long", "moments")]
    for folder in (RUNS / _RUN, *results):  # those of an earlier call must not pass for this one's
        shutil.rmtree(folder, ignore_errors=True)
    OUT.mkdir(exist_ok=True)
    code = run_steps(steps(quick), OUT / "qa_steps.json")
    if code == 0:
        print(f"open {' and '.join(str(folder / 'report.html') for folder in results)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
