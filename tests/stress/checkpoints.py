"""Damage weight files in a thousand ways and read each: one clear error, or a whole model.

    python -m tests.stress.checkpoints --mutants 1000 --out tests/stress/results

Every mutant is a published file (PyTorch's format of today and of before, safetensors), a
checkpoint or recipe of a run, or a file of an exported folder, changed in bytes or in what it says.
A mutant is a function of the seed and its number: ``--first N --mutants 1`` shows number N again.
A process of its own reads them, with little memory and little time: it must neither die, hang nor
fill the memory, and what it raises must be a ValueError that names the file.
"""

import argparse
import datetime
import json
import logging
import os
import pickle
import platform
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.export.runs import write_run
from tests.models import published as make
from vmm.export.command import main as export
from vmm.export.encoder import VideoTextEncoder
from vmm.export.folder import CONFIG, _fingerprint, _settings
from vmm.models.checkpoints import load_published
from vmm.runs import load_run, sha256

SMALL = {"width": 32, "depth": 2, "grid": 2, "frames": 4}
SECONDS, MEMORY = 30, 4 << 30  # that one mutant may take
FINE = ("refused", "loaded")

# ------------------------------------------------------------------------------------ what is read


def write_sources(folder):
    """One small file or folder of every kind."""
    text = (64, 3, 2, 96, 60, 20)
    state = make.video_text(**SMALL, text=text, output=24, joint=20)
    content = {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(9)}}, "param_groups": [{"lr": 1e-4}]},
        "config": {"model": {"text_encoder": {"num_attention_heads": 4}, "temp": 0.07}},
        "args": argparse.Namespace(lr=0.1, path=Path("runs")),
        "epoch": 9,
    }
    torch.save(content, folder / "today.pth")
    student = make.masked_pretrain(**SMALL, output=24).tensors()
    torch.save(student, folder / "before.pth", _use_new_zipfile_serialization=False)
    (folder / "bare.pth").write_bytes(pickle.dumps({"model": {"epoch": 1}, "args": [1.5, "x"]}))
    classifier = make.classifier(**SMALL, classes=7).tensors()
    config = json.dumps({"model": {"text_encoder": {"num_attention_heads": 4}}})
    save_file(classifier, folder / "published.safetensors", {"config": config})
    write_run(folder / "run", seed=0)
    assert export([str(folder / "run"), str(folder / "exported")]) == 0


def read_published(path):
    return load_published(path).model


def read_run(path):
    return load_run(path.parent if path.name == "config.yaml" else path.parents[1]).model


def read_exported(path):
    """Read a folder whose digests were made after the damage, as a stranger would."""
    config = path.parent / CONFIG
    with suppress(ValueError, LookupError, TypeError, AttributeError):  # else it stays as it is
        content = json.loads(config.read_bytes())
        if path.name != CONFIG:
            content["files"][path.name] = sha256(path)
        content["fingerprint"] = _fingerprint(_settings(content, path.parent), content["files"])
        config.write_text(json.dumps(content))
    encoder = VideoTextEncoder.from_pretrained(path.parent, device="cpu")
    encoder.encode_text(["a red circle"])
    return encoder.model


READERS = {
    "today.pth": read_published,
    "before.pth": read_published,
    "bare.pth": read_published,
    "published.safetensors": read_published,
    "run/checkpoints/last.ckpt": read_run,
    "run/config.yaml": read_run,
    "exported/model.safetensors": read_exported,
    "exported/config.json": read_exported,
    "exported/video_preprocessor_config.json": read_exported,
}

# --------------------------------------------------------------------------------- how it is broken


def flip(data, rng):
    for _ in range(rng.choice([1, 1, 3, 20])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def overwrite(data, rng):
    start = rng.randrange(len(data))
    length = min(rng.choice([1, 4, 8, 100]), len(data) - start)
    filled = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length)])
    data[start : start + length] = filled
    return data


def cut(data, rng):
    return data[: rng.randrange(len(data))]


def drop(data, rng):
    start = rng.randrange(len(data))
    del data[start : start + rng.choice([1, 7, 64, 4096])]
    return data


def repeat(data, rng):
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.choice([1, 8, 200])] * rng.choice([1, 9])
    return data


def number(data, rng):
    """Put another number where text holds one."""
    places = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
    if places:
        odd = [b"0", b"-1", b"99999999999999999999", b"1e999", b"null", b'"x"', b"[]", b"{}"]
        at = rng.choice(places)
        data[at : at + 1] = rng.choice(odd)
    return data


BYTES = [flip, overwrite, cut, drop, repeat, number]


def damage(data, rng):
    """Damage bytes, at least once; the start is hit more often, since it says what follows."""
    for _ in range(rng.choice([1, 1, 1, 2])):
        if not data:
            break
        near = len(data) if rng.random() < 0.5 else min(len(data), 2000)
        data = rng.choice(BYTES)(data[:near], rng) + data[near:]
    return data


def damage_member(path, rng):
    """Damage one member of a zip file, which is whole as such: its check sums are right."""
    with zipfile.ZipFile(path) as file:
        members = {info.filename: bytearray(file.read(info)) for info in file.infolist()}
    names = [name for name in members if name.endswith(".pkl") or rng.random() < 0.1]
    chosen = rng.choice(names)
    members[chosen] = damage(members[chosen], rng)
    if rng.random() < 0.1:
        del members[rng.choice(list(members))]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(name, bytes(content))


def damage_header(path, rng):
    """Damage what a safetensors file says of its tensors, whose length is then right again."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = damage(bytearray(data[8 : 8 + size]), rng)
    path.write_bytes(len(header).to_bytes(8, "little") + bytes(header) + data[8 + size :])


def odd_values(rng):
    return [
        None, True, -1, 0, 10**30, 1.5, float("nan"), "", "x" * 5000, [], {}, [[]], b"x",
        torch.ones(()), torch.ones(3, 3), torch.full((4,), torch.nan), torch.zeros(0),
        torch.ones(2, 2, dtype=torch.complex64), torch.ones(3).bool(), torch.ones(2).to_sparse(),
        torch.ones(1).expand(rng.choice([2, 10**12])), torch.empty(5, device="meta"),
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    ]  # fmt: skip


def damage_content(path, rng):
    """Replace a value, at any depth, by one of another kind; drop it, or give it another name."""
    content = torch.load(path, weights_only=False, map_location="cpu")
    holder = content
    while isinstance(holder, dict) and holder:
        key = rng.choice(list(holder))
        if not isinstance(holder[key], dict) or not holder[key] or rng.random() < 0.1:
            break
        holder = holder[key]
    how = rng.random()
    if how < 0.6:
        holder[key] = rng.choice(odd_values(rng))
    elif how < 0.8:
        del holder[key]
    else:
        holder[rng.choice([0, "", "x" * 99, "layers.99.norm.weight", None])] = holder.pop(key)
    torch.save(content, path)


def mutate(path, rng):
    """Change a file in one of the ways that its kind allows; say in which."""
    ways = [None]
    if zipfile.is_zipfile(path):
        ways += [damage_member, damage_content]
    elif path.suffix == ".safetensors":
        ways += [damage_header]
    way = rng.choice(ways)
    if way is None:
        path.write_bytes(damage(bytearray(path.read_bytes()), rng))
        return "bytes"
    way(path, rng)
    return way.__name__.removeprefix("damage_")


# ----------------------------------------------------------------------------------- a run over all


def outcome(read, path):
    """Read a mutant: what came of it, and the message if there is one."""
    try:
        model = read(path)
    except ValueError as error:
        named = any(str(part) in str(error) for part in (path, path.parent))
        return ("refused" if named and type(error) is ValueError else "nameless"), str(error)
    except BaseException as error:  # noqa: BLE001
        return "foreign", f"{type(error).__name__}: {error}"
    wrong = [key for key, value in model.state_dict().items() if not value.isfinite().all()]
    return ("not finite", ", ".join(wrong)) if wrong else ("loaded", "")


def work(sources, seed, first, last):
    """Make and read the mutants ``first`` to ``last - 1``; a line of JSON before and after each."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    logging.disable()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="vmm-mutants-") as name:
        for i in range(first, last):
            rng = random.Random(f"{seed} {i}")
            source = list(READERS)[i % len(READERS)]
            folder = Path(name) / str(i)
            print(json.dumps({"mutant": i, "source": source}), flush=True)
            shutil.copytree(sources, folder)
            way = mutate(folder / source, rng)
            what, message = outcome(READERS[source], folder / source)
            shutil.rmtree(folder)
            shown = message.replace(str(folder), "")[:300]
            line = {"mutant": i, "source": source, "way": way, "outcome": what, "message": shown}
            print(json.dumps(line), flush=True)
    return 0


def lines_of(process):
    """Yield the lines of a process as they come; stop where none comes for too long."""
    while select.select([process.stdout], [], [], SECONDS)[0]:
        line = process.stdout.readline()
        if not line:
            return
        yield json.loads(line)


def run_all(sources, seed, first, last):
    """Read all mutants, starting the reading process anew where one of them ended it."""
    results, following = [], first
    while following < last:
        command = [sys.executable, "-m", "tests.stress.checkpoints", "--sources", str(sources)]
        command += ["--seed", str(seed), "--first", str(following), "--mutants"]
        command += [str(last - following)]
        begun = None
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            for line in lines_of(process):
                if "outcome" in line:
                    results.append(line)
                begun = None if "outcome" in line else line
            ended = process.poll() is not None or process.stdout.read(0) is None
            process.kill()
        code = process.wait()
        if begun is not None:
            died = f"ended with status {code}" if ended else f"nothing for {SECONDS} s"
            results.append(begun | {"way": "?", "outcome": "died or hung", "message": died})
        elif results and results[-1]["mutant"] + 1 < last:
            raise RuntimeError(f"the reading process stopped between two mutants, status {code}")
        following = results[-1]["mutant"] + 1
    return results


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sources", type=Path, help=argparse.SUPPRESS)  # for the reading process
    options = parser.parse_args(arguments)
    span = options.first, options.first + options.mutants
    if options.sources is not None:
        return work(options.sources, options.seed, *span)
    begun = time.time()
    with tempfile.TemporaryDirectory(prefix="vmm-sources-") as name:
        write_sources(Path(name))
        results = run_all(Path(name), options.seed, *span)
    counts = Counter(line["outcome"] for line in results)
    table = Counter((line["source"], line["way"], line["outcome"]) for line in results)
    wrong = [line for line in results if line["outcome"] not in FINE]
    result = {
        "date": datetime.date.today().isoformat(),
        "mutants": len(results),
        "seed": options.seed,
        "seconds": round(time.time() - begun),
        "cores": os.cpu_count(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "outcomes": dict(counts),
        "wrong": wrong,
        "table": [[*key, count] for key, count in sorted(table.items())],
    }
    print(json.dumps({key: value for key, value in result.items() if key != "table"}, indent=1))
    if options.out is not None:
        path = options.out / f"checkpoints_{result['date']}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
