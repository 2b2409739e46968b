"""Damage the example of every annotation layout in many ways and read what is left.

    python -m tests.stress.annotations --mutants 1000

Every mutant must be read, or be refused with a ``ValueError`` that names the file; whatever was
read must be clean: texts that can be written as UTF-8, metadata that JSON can hold. Nothing may
take longer than a few seconds. Prints one line per layout, and JSON in the end.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import pickle
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from tests.data.annotations.examples import EXAMPLES
from vmm.data.annotations.class_list import read_class_names
from vmm.data.annotations.ids import read_ids
from vmm.data.annotations.registry import DATASETS, read_annotations
from vmm.evaluation.common.labels import number_classes, truths_of
from vmm.evaluation.long_video_qa.protocols import SETS, length_class, read_questions

SECONDS = 10
DEEP = "[" * 400 + "]" * 400
VALUES = (
    None, True, False, 0, -1, 2.5, 1e300, float("nan"), float("inf"), 10**400, "", " ", "0", "-1",
    "1_0", "nan", "N/A", "\ud83d", "a\ud83db", "a\u2028b\x85c", "\x00", "B", "(C)", "x" * 70000,
    [], {}, [None], [[]], [{}], {"a": 1}, ["a", None, "", 3], json.loads(DEEP), "../../etc/passwd",
)  # fmt: skip
BYTES = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\n", b"\r\n", b'"', b"'", b"\\", b",",
    b";", b"\t", b"[", b"{", b"}", b"]", b"\\ud83d", b"\xed\xa0\xbd", "\u2028".encode(), b"NaN",
    b"1e999", b"9" * 5000, b"PK\x03\x04", b"-", b"\xe2\x80", b"sep=;\n",
)  # fmt: skip


def nodes(tree, path=()):
    """List the paths of everything inside lists and dictionaries."""
    found = [path]
    if isinstance(tree, dict):
        for key, value in tree.items():
            found += nodes(value, (*path, key))
    elif isinstance(tree, list | tuple):
        for place, value in enumerate(tree):
            found += nodes(value, (*path, place))
    return found


def change(tree, rng):
    """Replace, remove, rename, repeat or exchange a part of plain containers."""
    tree = copy.deepcopy(tree)
    path = rng.choice(nodes(tree)[1:] or [()])
    if not path:
        return rng.choice(VALUES)
    parent = tree
    for step in path[:-1]:
        parent = parent[step]
    if isinstance(parent, tuple):
        return tree
    last = path[-1]
    kind = rng.choice(("replace", "replace", "replace", "remove", "rename", "repeat", "wrap"))
    if kind == "replace":
        parent[last] = copy.deepcopy(rng.choice(VALUES))
    elif kind == "wrap":
        parent[last] = [parent[last]]
    elif kind == "repeat" and isinstance(parent, list):
        parent.insert(last, copy.deepcopy(parent[last]))
    elif kind == "rename" and isinstance(parent, dict):
        parent[rng.choice(("id", "video", "caption", "answer", "", "\ud83d"))] = parent.pop(last)
    else:
        del parent[last]
    return tree


def damage(data, rng):
    """Change bytes: cut, repeat, overwrite or insert."""
    data = bytearray(data)
    place = rng.randrange(len(data) + 1)
    end = min(len(data), place + rng.choice((1, 2, 10, 100)))
    kind = rng.choice(("insert", "insert", "cut", "end", "flip", "repeat", "exchange"))
    if kind == "insert":
        data[place:place] = rng.choice(BYTES)
    elif kind == "cut":
        del data[place:end]
    elif kind == "end":
        del data[place:]
    elif kind == "flip" and place < len(data):
        data[place] ^= 1 << rng.randrange(8)
    elif kind == "repeat":
        data[place:place] = data[place:end] * rng.choice((1, 50))
    else:
        data[place:end] = rng.choice(BYTES)
    return bytes(data)


def dumped(tree, rng):
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.1:  # a name that stands twice
        text = text.replace('{"', '{"video": "other", "', 1)
    return text.encode("utf-8", "surrogatepass")


def mutant(name, data, rng):
    """Damage a file once or several times."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        structured = rng.random() < 0.6
        try:
            if structured and name.endswith(".json"):
                data = dumped(change(json.loads(data), rng), rng)
                continue
            if structured and name.endswith(".jsonl"):
                rows = [json.loads(line) for line in data.splitlines()]
                data = b"\n".join(dumped(row, rng) for row in change(rows, rng))
                continue
            if structured and name.endswith(".pkl"):
                data = pickle.dumps(change(pickle.loads(data), rng), rng.choice((0, 2, 4)))
                continue
        except Exception:  # noqa: BLE001  # damaged already
            pass
        data = damage(data, rng)
    if rng.random() < 0.05:
        other = rng.choice(("utf-16", "utf-16-le", "cp1252"))
        data = data.decode("utf-8", "replace").encode(other, "replace")
    return data


def written(text):
    """Fail where a text cannot be written."""
    assert isinstance(text, str), text
    text.encode()


def check(items):
    """Fail where something that was read is not clean."""
    assert items
    for item in items:
        for text in (item.key, item.media, *item.captions, *item.aliases):
            written(text)
        assert item.key and all(item.captions)
        assert item.start is None or isinstance(item.start, float)
        json.dumps(item.metadata, ensure_ascii=False).encode()
        options, answer = item.metadata.get("options"), item.metadata.get("answer")
        if isinstance(options, list) and answer is not None:
            assert options[answer]


def read(example, path):
    """Read a file in every way in which evaluations do."""
    items = read_annotations(path, example.dataset, **example.read_options(path.parent))
    check(items)
    if example.dataset in SETS and items[0].metadata.get("options"):
        file = read_questions(example.dataset, path, "joined")
        for question in file.questions:
            written(length_class(question.duration))
    if DATASETS[example.dataset].content == "classes":
        try:
            number_classes(truths_of(items))
        except ValueError as error:
            assert "class" in str(error)  # it knows no file


def attempt(function, folder, seconds=SECONDS):
    """Call a reader; return "read", "refused", or what went wrong."""

    def too_long(*_):
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        function()
    except ValueError as error:
        return "refused" if str(folder) in str(error) else f"names no file: {error}"
    except Exception:  # noqa: BLE001
        return traceback.format_exc(limit=-3)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    return "read"


def stress(names, mutants, seed, folder):
    """Read mutants of these examples.

    Returns:
        Example -> counts of "read" and "refused"; a list of (example, number, failure).
    """
    counts, failures = {}, []
    for name in names:
        example = EXAMPLES[name]
        path = example.write(folder / name.replace(" ", "_"))
        whole = {file: (path.parent / file).read_bytes() for file in example.files}
        counts[name] = Counter()
        for number in range(mutants):
            rng = random.Random(f"{seed} {name} {number}")
            for file, data in whole.items():
                changed = file == path.name or rng.random() < 0.2
                (path.parent / file).write_bytes(mutant(file, data, rng) if changed else data)
            result = attempt(lambda e=example, p=path: read(e, p), path.parent)
            if result in ("read", "refused"):
                counts[name][result] += 1
            else:
                failures.append((name, number, result))
    return counts, failures


LISTS = {
    "ids.txt": (read_ids, b"video0\nx/video 7.mp4\n\nvideo9\n"),
    "ids.csv": (read_ids, b"video_id,split\nvideo0,test\nvideo7,test\n"),
    "ids.json": (read_ids, b'["video0", "video7.mp4", 3]'),
    "ids.pkl": (read_ids, pickle.dumps({"video0": 1, "video7": 0})),
    "names.txt": (read_class_names, b"abseiling\n\nair drumming\nyoga\n"),
    "names.csv": (read_class_names, b"id,name\n0,abseiling\n1,yoga\n"),
    "names.json": (read_class_names, b'{"abseiling": 0, "yoga": "1"}'),
}


def stress_lists(mutants, seed, folder):
    """Read mutants of lists of ids and of class names; see ``stress``."""
    counts, failures = {}, []
    for name, (reader, data) in LISTS.items():
        path = folder / name
        counts[name] = Counter()
        for number in range(mutants):
            path.write_bytes(mutant(name, data, random.Random(f"{seed} {name} {number}")))
            result = attempt(lambda r=reader, p=path: [written(n) for n in r(p) if n], folder)
            if result in ("read", "refused"):
                counts[name][result] += 1
            else:
                failures.append((name, number, result))
    return counts, failures


def main():
    """Run all; status 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=1000, help="of each layout")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of examples")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        names = options.only or EXAMPLES
        counts, failures = stress(names, options.mutants, options.seed, Path(folder))
        if not options.only:
            more, others = stress_lists(options.mutants, options.seed, Path(folder))
            counts, failures = counts | more, failures + others
    for name, count in counts.items():
        print(f"{name:24} {count['read']:5d} read {count['refused']:5d} refused")
    for name, number, result in failures[:20]:
        print(f"{name}, mutant {number}:\n{result}")
    summary = {"layouts": len(counts), "mutants": options.mutants, "failures": len(failures)}
    print(json.dumps(summary))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
