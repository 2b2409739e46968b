"""Open questions about videos: accuracy of a trained answer decoder, with its controls.

    python -m eval.open_qa --run RUN --dataset msrvtt-qa --annotations test.jsonl \
        --answers answers.json --media videos/
    python -m eval.open_qa --run RUN --shards 'data/demo/test-*.tar'

The run is one of recipes/answer_qa.yaml: it was trained on questions and answers, so its numbers
are never zero-shot. Each question gets the most probable answer of the list, exactly, and is right
if its words are those of a known answer. Beside it: the same question about a blank video, and
always the most frequent right answer to questions of that kind. An evaluation that was stopped goes
on from the videos it had asked about.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.answering import (
    TOP,
    OpenQuestion,
    ask,
    judge,
    lint_questions,
    measure,
    questions_in_shards,
    read_open_questions,
)
from eval.command import (
    add_data,
    folder_for,
    new_parser,
    run_command,
    versions,
    write_accuracy_page,
)
from eval.qa.journal import Journal
from eval.results import findings_text, origin_rows, text_table
from eval.sources import AnnotatedClips, ShardClips
from vmm.command_line import whole
from vmm.data.annotations.questions import read_answer_list
from vmm.data.transforms import ClipSettings
from vmm.export.run import TrainedModel, build_answer_model, load_model
from vmm.models.answer import AnswerModel
from vmm.ops.tuning.cpu_setup import tune_cpu

logger = logging.getLogger(__name__)

SCHEMA = 1
FILE_NAME = "open_qa.json"
DATASETS = {
    "msrvtt-qa": "MSRVTT-QA",
    "msvd-qa": "MSVD-QA",
    "activitynet-qa": "ActivityNet-QA",
}
"""Name on the command line -> title."""

# Accuracy of UMT (arXiv 2303.16058) after fine-tuning, from its base to its large model.
_PUBLISHED = {
    "MSRVTT-QA": "44.3 to 47.1",
    "MSVD-QA": "49.1 to 55.2",
    "ActivityNet-QA": "43.5 to 47.9",
}
_ROWS = {
    "accuracy": "accuracy",
    "top_5": f"right answer among {TOP}",
    "blank": "blank video",
    "frequent": "most frequent answer",
    "gain": "above the better control",
}


def run_open_qa(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Evaluate as the command line asks, write the result files, and give the result.

    Raises:
        ValueError: If the model or the data cannot be used.
    """
    if options.device == "cpu":
        for sentence in tune_cpu().values():
            logger.info(sentence)
    run = load_model(options.run, build_answer_model, options.checkpoint)
    model = run.model.to(options.device)
    listed = options.answers or Path(run.config["model"]["init_args"]["answers"])
    answers = model.answer_list(read_answer_list(listed))
    clips, questions = _questions(options, run.clip)
    out = folder_for(options, f"open_qa_{options.dataset or 'shards'}", "")
    out.mkdir(parents=True, exist_ok=True)
    depends_on = {
        "checkpoint": run.sha256,
        "clip": asdict(run.clip),
        "data": clips.fingerprint(),
        "questions": questions,
        "answers": answers.texts,
        "versions": versions(),
    }
    journal = Journal(out / "replies", depends_on)
    replies, problems = ask(
        model, answers, clips, questions, journal, options.batch_size, options.num_workers
    )
    if not any(replies):
        reason = problems.most_common(1)[0][0]
        raise ValueError(f"not one video could be read ({reason}); look at the reasons in the log")
    if options.coverage == "available":
        answered = [number for number, reply in enumerate(replies) if reply is not None]
        questions = [questions[number] for number in answered]
        replies = [replies[number] for number in answered]
    judged = judge(questions, replies, answers.texts)
    numbers = measure(questions, judged)
    result = {
        "schema": SCHEMA,
        "name": options.name or f"{type(model.video_encoder).__name__}, answer decoder",
        "command": command,
        "model": _describe_model(run),
        "data": _describe_data(options, questions, problems, listed, answers.texts),
        "settings": _describe_settings(options, run.clip),
        "numbers": numbers,
        "findings": [vars(f) for f in lint_questions(options.dataset, questions, answers, numbers)],
        "replies": [
            {
                "id": question.id,
                "question": question.text,
                "kind": question.kind,
                "answers": question.answers,
                "said": [answers.texts[a] for a in reply.answers] if reply else None,
                "right": bool(right),
            }
            for question, reply, right in zip(questions, replies, judged.model, strict=True)
        ],
        "versions": versions(),
    }
    (out / FILE_NAME).write_text(json.dumps(result), encoding="utf-8")
    _write_page(out / "open_qa.html", result)
    journal.remove()
    logger.info("wrote %s and open_qa.html", out / FILE_NAME)
    return result


def _questions(
    options: argparse.Namespace, clip: ClipSettings
) -> tuple[AnnotatedClips | ShardClips, list[OpenQuestion]]:
    if options.dataset:
        return read_open_questions(options.dataset, options.annotations, options.media, clip)
    clips = ShardClips(options.shards, clip)
    return clips, questions_in_shards(clips)


def verdict(result: dict[str, Any]) -> str:
    """Say in a sentence whether the video helps."""
    numbers = result["numbers"]
    low, high = numbers["gain"]["interval"]
    control = _ROWS[numbers["control"]]
    helps = "The video helps" if low > 0 else "Nothing shows that the video helps"
    return (
        f"{helps}: {numbers['accuracy']['value']:.1f} % right, "
        f"{numbers['gain']['value']:+.1f} points ({low:.1f} to {high:.1f}) against "
        f"the better control, {control}."
    )


def number_rows(result: dict[str, Any]) -> list[list[str]]:
    """Tabulate the numbers, header first."""
    rows = [["", "percent", "95 % interval"]]
    for key, title in _ROWS.items():
        low, high = result["numbers"][key]["interval"]
        rows.append([title, f"{result['numbers'][key]['value']:.1f}", f"{low:.1f} to {high:.1f}"])
    return rows


def kind_rows(result: dict[str, Any]) -> list[list[str]]:
    """Tabulate the kinds of questions, header first."""
    keys = ("accuracy", "blank", "frequent")
    rows = [["kind", "questions", *(_ROWS[key] for key in keys)]]
    for kind, numbers in result["numbers"]["by_kind"].items():
        values = [f"{numbers[key]['value']:.1f}" for key in keys]
        rows.append([kind, str(numbers["questions"]), *values])
    return rows


def open_qa_table(result: dict[str, Any]) -> str:
    """Format a result for the terminal."""
    data = result["data"]
    lines = [
        f"{result['name']} (trained on answers): {data['test_set']}, {data['questions']} questions "
        f"about {data['videos']} videos ({data['unreadable']} unreadable)",
        text_table(number_rows(result), left=1),
        text_table(kind_rows(result), left=1),
        verdict(result),
    ]
    if result["findings"]:
        lines.append(findings_text(result["findings"]))
    return "\n".join(lines)


def open_qa_card(result: dict[str, Any]) -> list[tuple[str, str]]:
    """List everything that the numbers depend on."""
    data, settings = result["data"], result["settings"]
    problems = ", ".join(f"{n} {reason}" for reason, n in data["problems"].items())
    return [
        ("test set", data["test_set"]),
        ("kind", "fine-tuned on questions and answers, not zero-shot"),
        ("questions", f"{data['questions']}, hash {data['split_hash']}"),
        ("videos", f"{data['videos']}, {data['unreadable']} unreadable"
                   + f" ({problems})" * bool(problems)),
        ("files", ", ".join(data["files"])),
        ("answers", f"the most probable of {data['answers']} ({data['answer_list']}, hash "
                    f"{data['answers_hash']}), all of them compared; each word counted once"),
        ("right", "equal words after lower-casing and removing punctuation"),
        ("coverage", settings["coverage"]),
        ("frames", f"{settings['num_frames']}, sampling {settings['sampling']!r} without draws"),
        ("resolution", f"{settings['image_size']} pixels, {settings['fit']}"),
        ("views", "1"),
        *origin_rows(result),
    ]  # fmt: skip


def _write_page(path: Path, result: dict[str, Any]) -> None:
    tables = {"By kind of question": kind_rows(result)}
    title = result["data"]["test_set"]
    if title in _PUBLISHED:
        own = f"{result['numbers']['accuracy']['value']:.1f}"
        tables["Beside published numbers"] = [
            ["model, fine-tuned", "accuracy"],
            [result["name"], own],
            ["UMT, from B to L", _PUBLISHED[title]],
        ]
    shown = [["question", "said", "known"]] + [
        [r["question"], (r["said"] or ["(unreadable)"])[0], ", ".join(sorted(set(r["answers"])))]
        for r in [r for r in result["replies"] if not r["right"]][:20]
    ]
    if len(shown) > 1:
        tables["The first wrong answers"] = shown
    write_accuracy_page(
        path,
        title=f"{result['name']} on {title}",
        summary=verdict(result),
        table=number_rows(result),
        note="The model was trained on questions and answers: this is not zero-shot. Blank video: "
        "the same questions about a grey clip. Most frequent answer: always the commonest right "
        "answer to questions of that kind, counted on this very set, which flatters it. Intervals "
        "are drawn over videos: questions about one video are right or wrong together.",
        tables=tables,
        findings=result["findings"],
        pictures={},
        card=open_qa_card(result),
    )


def _describe_model(run: TrainedModel[AnswerModel]) -> dict[str, Any]:
    return {
        "encoder": f"{type(run.model.video_encoder).__name__} with an answer decoder",
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "checkpoint": run.checkpoint.name,
        "sha256": run.sha256,
    }


def _describe_data(
    options: argparse.Namespace,
    questions: Sequence[OpenQuestion],
    problems: Counter[str],
    listed: Path,
    answers: Sequence[str],
) -> dict[str, Any]:
    files = [options.annotations, options.media] if options.dataset else [options.shards]
    return {
        "test_set": DATASETS[options.dataset] if options.dataset else "shards",
        "split_hash": _hash([[q.id, q.text, *q.answers] for q in questions]),
        "files": [Path(file).name for file in files],
        "questions": len(questions),
        "videos": len({question.video for question in questions}),
        "unreadable": problems.total(),
        "problems": dict(problems),
        "answer_list": listed.name,
        "answers": len(answers),
        "answers_hash": _hash(list(answers)),
    }


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _describe_settings(options: argparse.Namespace, clip: ClipSettings) -> dict[str, Any]:
    return {
        "coverage": {
            "strict": "strict: questions about unreadable videos are wrong",
            "available": "available: questions about unreadable videos are dropped",
        }[options.coverage],
        "num_frames": clip.num_frames,
        "sampling": clip.sampling,
        "image_size": clip.image_size,
        "fit": clip.fit,
        "decoder": clip.decoder,
        "device": options.device,
    }


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("eval.open_qa", __doc__, "run directory of recipes/answer_qa.yaml")
    add_data(parser, "pattern of shards whose JSON asks questions", list(DATASETS))
    add = parser.add_argument
    add("--answers", type=Path, help="JSON list to rank (default: the list of the run's recipe)")
    add("--coverage", choices=("strict", "available"), default="strict",
        help="questions about unreadable videos are wrong (strict), or dropped")  # fmt: skip
    add("--batch-size", type=whole(1), default=32, help="questions about a video read at once")
    add("--num-workers", type=whole(0, 1024), default=2, help="decoding processes (default: 2)")
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """Run the evaluation and print its table; status 2 for a mistake in what it was given."""
    return run_command("eval.open_qa", _parser(), run_open_qa, open_qa_table, args)


if __name__ == "__main__":
    sys.exit(main())
