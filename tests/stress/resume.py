"""Kill training at random moments, go on with other workers and ranks, compare every sample.

    python -m tests.stress.resume --kills 100 --fit-kills 3 --out tests/stress/results

``--kills`` is per cell of {1, 2, 4 workers} x {1, 2 ranks}: real processes run the real loader with
its workers, save their position as the trainer does, and get SIGKILL at a random moment; the next
ones go on in another cell. ``--fit-kills`` does the same to ``vmm fit`` itself, with 1 and 2 ranks
in turn. Every batch that any process was ever given must hold exactly the samples, captions and
pixels of the one uninterrupted sequence.
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lightning as L
import torch
import yaml

from tests.data import conftest as tools
from tests.data.videos import encode_video, moving_picture
from vmm.data.corpora import Corpus, open_corpora
from vmm.data.loader import TrainLoader
from vmm.data.stream import TrainStream
from vmm.data.transforms import ClipSettings

CELLS = [(workers, ranks) for workers in (1, 2, 4) for ranks in (1, 2)]
BATCH = {"video": 8, "image": 4}
ROOT = Path(__file__).parents[2]


def write_data(folder):
    """Two corpora of noisy clips and one of images; every tenth clip cannot be decoded."""
    for corpus, shards in (("a", 4), ("b", 2)):
        for shard in range(shards):
            members = []
            for row in range(10):
                picture = moving_picture(6, 24, 32, seed=shard * 10 + row)
                clip = encode_video(picture, preset="ultrafast")
                broken = row == 7
                caption = f"{corpus} {shard} {row}".encode()
                members.append((f"{row:04d}.mp4", clip[:200] if broken else clip))
                members.append((f"{row:04d}.txt", caption))
            tools.write_tar(folder / corpus / f"{shard:05d}.tar", members)
    members = [member for code in range(18) for member in tools.coded_sample(code, "image")]
    tools.write_tar(folder / "images.tar", members)


def make_stream(folder, rank=0, ranks=1, bad=None, steps_per_epoch=23):
    corpora = {"a": Corpus(f"{folder}/a"), "b": Corpus(f"{folder}/b", 1.5)}
    sources = open_corpora({"video": corpora, "image": f"{folder}/images.tar"}, seed=3)
    sizes = {media: size // ranks for media, size in BATCH.items()}
    settings = ClipSettings(num_frames=4, image_size=16, crop_scale=(0.3, 1.0))
    return TrainStream(
        sources,
        sizes,
        settings,
        seed=3,
        rank=rank,
        world_size=ranks,
        bad=bad,
        steps_per_epoch=steps_per_epoch,
    )


def samples_of(batch):
    """(key, caption, digest of the pixels) of every sample of a batch."""
    digests = [hashlib.blake2b(v.numpy().tobytes(), digest_size=8).hexdigest() for v in
               batch["video"]]  # fmt: skip
    return [list(row) for row in zip(batch["key"], batch["text"], digests, strict=True)]


class Log:
    """One line per batch, whole or not at all."""

    def __init__(self, path):
        self.path = path

    def write(self, **record):
        with open(self.path, "ab", buffering=0) as file:
            file.write(json.dumps(record).encode() + b"\n")

    def read(self):
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        return [json.loads(line) for line in lines if line]


def train(folder, rank, ranks, workers, incarnation, every, notify):
    """What the trainer does with a loader: take batches, step, save the position now and then."""
    position = folder / f"position-{rank}.json"
    done = json.loads((folder / "position.json").read_text())
    log = Log(folder / f"log-{rank}.jsonl")
    loader = TrainLoader(make_stream(folder, rank, ranks), workers, lambda: done)
    while True:
        for batch in loader:
            log.write(
                incarnation=incarnation,
                step=done, rank=rank, ranks=ranks, samples=samples_of(batch),
            )  # fmt: skip
            done += 1
            if done % every == 0:
                partial = position.with_suffix(f".{os.getpid()}")
                partial.write_text(str(done))
                partial.replace(position)
            os.write(notify, b".")


def incarnate(folder, rng, number, workers, ranks):
    """Start all ranks, wait for a random moment, kill them, and settle where to go on."""
    start = json.loads((folder / "position.json").read_text())
    for rank in range(ranks):
        (folder / f"position-{rank}.json").write_text(str(start))
    hear, notify = os.pipe()
    every = rng.choice([1, 1, 2, 3, 5])
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            os.close(hear)
            train(folder, rank, ranks, workers, number, every, notify)
        children.append(child)
    os.close(notify)
    for _ in range(rng.choice([0, 0, 1, 2, 4, 8, 16])):
        assert os.read(hear, 1), "a rank ended by itself"
    time.sleep(rng.uniform(0, 0.3))
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    os.close(hear)
    saved = min(int((folder / f"position-{rank}.json").read_text()) for rank in range(ranks))
    (folder / "position.json").write_text(str(saved))
    return start, saved


def kill_loaders(folder, kills, seed):
    """Go through every cell ``kills`` times in random order; returns the figures."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    (folder / "position.json").write_text("0")
    cells = CELLS * kills
    rng.shuffle(cells)
    spans = [incarnate(folder, rng, n, *cell) for n, cell in enumerate(cells)]
    records = [r for rank in (0, 1) for r in Log(folder / f"log-{rank}.jsonl").read()]
    wrong = compare(folder, records, spans, cells)
    return {
        "kills": len(spans),
        "cells": {f"{w} workers, {r} ranks": cells.count((w, r)) for w, r in CELLS},
        "steps saved": spans[-1][1],
        "batches compared": len(records),
        "samples compared": sum(len(record["samples"]) for record in records),
        "differences": wrong,
    }


def compare(folder, records, spans, cells):
    """Count the batches that differ from the uninterrupted sequence, and the gaps between them."""
    whole = make_stream(folder)
    reference = {}
    wrong = 0
    begun = {}
    for record in records:
        step = record["step"]
        if step not in reference:
            reference[step] = samples_of(whole.batch(step))
        size = len(reference[step]) // record["ranks"]
        share = reference[step][record["rank"] * size : (record["rank"] + 1) * size]
        wrong += record["samples"] != share
        begun.setdefault((record["incarnation"], record["rank"]), []).append(step)
    for (incarnation, _), steps in begun.items():  # each goes on where the saved one ended
        start = spans[incarnation][0]
        wrong += steps != list(range(start, start + len(steps)))
    for number, (start, saved) in enumerate(spans):  # and nothing saved was not trained on
        for rank in range(cells[number][1]):
            wrong += len(begun.get((number, rank), [])) < saved - start
    return wrong


class Recorder(L.Callback):
    """Notes what ``vmm fit`` trains on, and says so to the process that will kill it."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        folder = Path(os.environ["VMM_STRESS_FOLDER"])
        incarnation = int(os.environ["VMM_STRESS_INCARNATION"])
        Log(folder / f"log-{trainer.global_rank}.jsonl").write(
            incarnation=incarnation, step=trainer.global_step, rank=trainer.global_rank,
            ranks=trainer.world_size, samples=samples_of(batch),
        )  # fmt: skip


def fit_command(folder, number, ranks, workers):
    runs = folder / "runs/stage2_vtt"
    saved = (runs / f"run{n}/checkpoints/last.ckpt" for n in reversed(range(number)))
    last = next((path for path in saved if path.exists()), None)
    corpora = {"a": {"shards": f"{folder}/a"}, "b": {"shards": f"{folder}/b", "weight": 1.5}}
    options = {
        "data.init_args.train_videos": json.dumps(corpora),
        "data.init_args.train_images": f"{folder}/images.tar",
        "data.init_args.val_videos": "null",
        "data.init_args.test_videos": "null",
        "data.init_args.make_demo": "false",
        "data.init_args.batch_size": BATCH["video"] // ranks,
        "data.init_args.image_batch_size": BATCH["image"] // ranks,
        "data.init_args.max_bad": 1,
        "data.init_args.steps_per_epoch": 7,
        "data.init_args.num_workers": workers,
        "data.init_args.seed": 3,
        "trainer.max_steps": 100_000,
        "trainer.max_epochs": -1,
        "trainer.accelerator": "cpu",
        "trainer.devices": ranks,
        "trainer.strategy": "auto" if ranks == 1 else "ddp_find_unused_parameters_true",
        "trainer.limit_val_batches": 0,
        "trainer.enable_progress_bar": "false",
        "trainer.logger.init_args.save_dir": folder / "runs",
        "trainer.logger.init_args.version": f"run{number}",
        "last_checkpoint.every_n_train_steps": 1,
        "checkpoint.save_top_k": 0,
    }
    overlays = ["recipes/stage2_vtt.yaml", "recipes/overlays/debug.yaml"]
    command = [sys.executable, "-m", "vmm", "fit"]
    command += [part for path in overlays for part in ("-c", path)]
    command += [f"--{key}={value}" for key, value in options.items()]
    command += ["--trainer.callbacks+=tests.stress.resume.Recorder"]
    return command + ([f"--ckpt_path={last}"] if last else [])


def kill_fits(folder, kills, seed):
    """Kill ``vmm fit`` on one and two ranks in turn; every batch must be in its place."""
    rng = random.Random(seed)
    incarnations = []
    for number in range(2 * kills + 1):
        ranks, workers = number % 2 + 1, rng.choice([1, 2])
        environment = os.environ | {
            "VMM_STRESS_FOLDER": str(folder), "VMM_STRESS_INCARNATION": str(number),
        }  # fmt: skip
        output = open(folder / f"fit-{number}.txt", "wb")  # noqa: SIM115
        process = subprocess.Popen(
            fit_command(folder, number, ranks, workers), cwd=ROOT, env=environment,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        wanted = rng.randint(3, 9)
        log = Log(folder / "log-0.jsonl")
        while sum(r["incarnation"] == number for r in log.read()) < wanted:
            assert process.poll() is None, (folder / f"fit-{number}.txt").read_text()[-3000:]
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.close()
        incarnations.append((ranks, workers))
    records = [r for rank in (0, 1) for r in Log(folder / f"log-{rank}.jsonl").read()]
    wrong, whole = 0, fit_stream(folder)
    starts = {}
    for record in records:
        reference = samples_of(whole.batch(record["step"]))
        size = len(reference) // record["ranks"]
        share = reference[record["rank"] * size : (record["rank"] + 1) * size]
        wrong += record["samples"] != share
        if record["rank"] == 0:
            starts.setdefault(record["incarnation"], []).append(record["step"])
    redone = 0
    for number in range(1, len(incarnations)):
        assert starts[number] == list(range(starts[number][0], starts[number][-1] + 1))
        again = starts[number - 1][-1] + 1 - starts[number][0]
        wrong += again not in (0, 1, 2)  # of the steps that were being saved
        redone += again
    return {
        "kills": len(incarnations),
        "topologies (ranks, workers)": incarnations,
        "batches compared": len(records),
        "steps trained again": redone,
        "differences": wrong,
    }


def fit_stream(folder):
    """The sequence that the recipe of ``fit_command`` asks for."""
    corpora = {"a": Corpus(f"{folder}/a"), "b": Corpus(f"{folder}/b", 1.5)}
    sources = open_corpora({"video": corpora, "image": f"{folder}/images.tar"}, seed=3)
    run = folder / "runs/stage2_vtt/run0/config.yaml"
    config = yaml.safe_load(run.read_text())
    data, encoder = (config[part]["init_args"] for part in ("data", "model"))
    encoder = encoder["video_encoder"]["init_args"]
    settings = ClipSettings(
        num_frames=encoder["num_frames"], image_size=encoder["image_size"],
        crop_scale=tuple(data["crop_scale"]), sampling=data["sampling"],
    )  # fmt: skip
    return TrainStream(sources, BATCH, settings, seed=3, steps_per_epoch=7)


def write_result(out, name, results):
    """Add a run to the file of today; long series go in pieces with different seeds."""
    today = datetime.date.today().isoformat()
    path = out / f"{name}_{today}.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    runs.append(results)
    versions = {"torch": torch.__version__, "lightning": L.__version__}
    versions["python"] = platform.python_version()
    content = {"date": today, "cores": os.cpu_count(), "versions": versions, "runs": runs}
    path.write_text(json.dumps(content, indent=1) + "\n")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--fit-kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    begun = time.time()
    folder = Path(tempfile.mkdtemp(prefix="vmm-stress-"))
    results = {}
    try:
        write_data(folder)
        if options.kills:
            results["loader"] = kill_loaders(folder, options.kills, options.seed)
            print(json.dumps(results["loader"]), flush=True)
            for path in folder.glob("log-*"):
                path.unlink()
        if options.fit_kills:
            results["vmm fit"] = kill_fits(folder, options.fit_kills, options.seed)
            print(json.dumps(results["vmm fit"]), flush=True)
    finally:
        shutil.rmtree(folder)
    if options.out is not None:
        took = {"seed": options.seed, "seconds": round(time.time() - begun)}
        write_result(options.out, "resume", took | results)
    parts = (results[part] for part in ("loader", "vmm fit") if part in results)
    return int(any(part["differences"] for part in parts))


if __name__ == "__main__":
    sys.exit(main())
