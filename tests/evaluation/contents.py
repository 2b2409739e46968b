"""What result files hold, smaller than life; anew at each call."""

import copy
import json

METRICS = {
    f"{d}_{name}": value
    for d in ("t2v", "v2t")
    for name, value in {
        "recall_1": 81.25,
        "recall_5": 95.0,
        "recall_10": 99.0,
        "recall_mean": 91.75,
        "median_rank": 1.0,
        "mean_rank": 1.5,
    }.items()
} | {"recall_mean": 90.0, "ties": 0.0}

KINDS = ("dual", "vectors", "mixed", "reranked")

RANKS = {
    "better": [0, 0, 7, 0, 30, 0, 2, 0],
    "tied": [1] * 8,
    "targets": [1] * 8,
    "candidates": 256,
}


def retrieval():
    """Of ``retrieval.json``."""
    interval = {"t2v_recall_1": [77.0, 85.0], "v2t_recall_1": [77.0, 85.0]}
    queries = {"t2v": RANKS, "v2t": RANKS}
    content = {
        "schema": 2,
        "name": "VideoMamba",
        "command": "vmm eval retrieval --run runs/x",
        "model": {
            "encoder": "VideoMamba",
            "parameters": 650_000,
            "checkpoint": "a.ckpt",
            "sha256": "ab" * 32,
        },
        "data": {
            "test_set": "shards",
            "recognised": None,
            "split_hash": "0123456789abcdef",
            "files": ["test-000000.tar"],
            "videos": 256,
            "captions": 256,
            "captions_per_video": [1, 1],
            "paragraph": False,
            "clips": {
                "rule": "strict",
                "listed": 256,
                "readable": 255,
                "unreadable": 1,
                "problems": {"truncated": 1},
                "lost": {},
            },
        },
        "settings": {
            "num_frames": 8,
            "frame_order": "forward",
            "sampling": "random",
            "image_size": 64,
            "fit": "squash",
            "views": 1,
            "k": 128,
            "mixture": {"temperature": 0.05, "weight": 0.5},
            "coverage": "strict",
            "ties": "expectation over random order",
            "precision": "float32",
            "decoder": "pyav",
            "batch_size": 32,
            "device": "cpu",
        },
        "chance": METRICS | {"t2v_recall_1": 0.390625, "v2t_recall_1": 0.390625},
        "dual": METRICS,
        "vectors": METRICS | {"t2v_recall_1": 82.5},
        "mixed": METRICS | {"t2v_recall_1": 90.5},
        "reranked": METRICS | {"t2v_recall_1": 88.5},
        "interval": dict.fromkeys(KINDS, interval),
        "queries": {"video": list(range(8)), **dict.fromkeys(KINDS, queries)},
        "direction": {"pairs": 256, "dual": 97.5, "vectors": 97.0, "mixed": 99.5, "match": 98.5},
        "findings": [],
        "seconds": {"encode": 1.0, "score": 2.0},
        "versions": {"torch": "2.15"},
        "examples": [],
        "best": [],
        "worst": [],
    }
    return copy.deepcopy(content)


_MODEL = {"encoder": "x", "parameters": 650_000, "checkpoint": "a.ckpt", "sha256": "ab" * 32}
_LOOK = {"num_frames": 8, "sampling": "random", "image_size": 64, "fit": "squash",
         "decoder": "pyav", "device": "cpu", "batch_size": 8}  # fmt: skip


def classification():
    """Of ``classification.json``: five samples of tea, milk and water, the last unreadable."""
    content = {
        "schema": 1,
        "name": "mine",
        "command": "vmm eval classification --run x",
        "model": _MODEL,
        "data": {
            "test_set": "shards, label", "split_hash": "0123456789abcdef", "files": ["a.tar"],
            "listed": 5, "readable": 4, "problems": {"empty": 1}, "coverage": "strict",
            "classes": 3, "numbered_by": "names in order",
        },
        "settings": _LOOK | {
            "kind": "zero-shot by prompts", "templates": ["a {}"], "clips": 2, "crops": 3,
            "merged": "mean of cosines",
        },
        "numbers": {
            "top_1": 40.0, "top_5": 80.0, "mean_class": 50.0, "chance": 100 / 3, "majority": 60.0,
            "interval": {"top_1": [20.0, 60.0], "top_5": [60.0, 100.0]},
            "per_class": [
                {"name": "tea", "samples": 3, "top_1": 100 / 3, "taken_for": "milk"},
                {"name": "<i>milk", "samples": 2, "top_1": 50.0, "taken_for": None},
            ],
        },
        "classes": ["tea", "<i>milk", "water"],
        "predictions": [["a", 0, 0], ["b", 0, 1], ["c", 0, 1], ["d", 1, 1], ["e", 1, None]],
        "findings": [],
        "versions": {"torch": "2.15"},
    }  # fmt: skip
    return copy.deepcopy(content)


def regression():
    """The same of a number to predict."""
    numbers = {"mse": 0.25, "constant": 0.5, "interval": {"mse": [0.1, 0.4]}}
    rest = {"classes": [], "predictions": [["a", 0.5, 1.0]], "numbers": numbers}
    content = classification() | rest
    content["data"] |= {"test_set": "LVU like ratio", "classes": 0}
    return content


def open_qa():
    """Of ``open_qa.json``: three questions, of which the last is about an unreadable video."""

    def number(value):
        return {"value": value, "interval": [value - 10, value + 10]}

    names = ("accuracy", "top_5", "blank", "frequent")
    numbers = dict(zip(names, map(number, (33.3, 66.7, 0.0, 20.0)), strict=True))
    content = {
        "schema": 1,
        "name": "mine",
        "command": "vmm eval open_qa --run x",
        "model": _MODEL,
        "data": {
            "test_set": "shards", "split_hash": "0123456789abcdef", "files": ["a.tar"],
            "questions": 3, "videos": 2, "unreadable": 1, "problems": {"empty": 1},
            "answer_list": "answers.json", "answers": 9, "answers_hash": "fedcba9876543210",
        },
        "settings": _LOOK | {"coverage": "strict: questions about unreadable videos are wrong"},
        "numbers": numbers | {
            "gain": number(13.3), "control": "frequent",
            "by_kind": {"what": {"questions": 3, **numbers}},
        },
        "replies": [
            {"id": "0", "question": "what?", "kind": "what", "answers": ["red"],
             "said": ["red", "blue"], "right": True},
            {"id": "1", "question": "<i>which?", "kind": "what", "answers": ["a", "b", "a"],
             "said": ["blue", "red"], "right": False},
            {"id": "2", "question": "who?", "kind": "what", "answers": ["me"],
             "said": None, "right": False},
        ],
        "findings": [],
        "versions": {"torch": "2.15"},
    }  # fmt: skip
    return copy.deepcopy(content)


def write_pair(folder, a_better, b_better, video, changes=None):
    """Write two retrieval results, and give their paths.

    Better candidates of every query, the video of each caption; of the second what is different,
    as "part.field" -> value.
    """
    paths = []
    for name, better in (("a", a_better), ("b", b_better)):
        ones = [1] * len(better)
        ranks = {"better": better, "tied": ones, "targets": ones, "candidates": len(better)}
        content = retrieval() | {"name": name, **dict.fromkeys(KINDS[1:])}
        content["queries"] = {"video": video, "dual": {"t2v": ranks, "v2t": ranks}}
        for key, value in (changes or {}).items() if name == "b" else ():
            part, _, field = key.partition(".")
            content[part][field] = value
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps(content))
    return paths


def write_log(folder):
    """Write what a training logs into a run directory, and give that."""
    folder.mkdir()
    lines = ["epoch,step,train/loss,train/vtc,val/t2v_recall_1,lr-AdamW"]
    lines += [f"0,{step},{3 - step / 100},{2 - step / 100},,0.1" for step in range(0, 100, 10)]
    lines += ["0,99,,,42.0,", "0,100,nan,1.0,,"]
    (folder / "metrics.csv").write_text("\n".join(lines))
    return folder


def write_captions(folder):
    """Write annotations of six videos with a caption each, and give their path."""
    items = [{"video": f"vidéo{i}.mp4", "caption": f"what {i} shows"} for i in range(6)]
    path = folder / "mine.json"
    path.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    return path
