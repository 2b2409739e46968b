"""A served encoder under load: clients that ask for vectors, and one that sends damaged files.

    python -m tests.stress.serving --minutes 10 --clients 32 --out tests/stress/results

``vmm serve`` runs as a process of its own, with a small untrained model unless --encoder
names one. Clients in another process each send captions, clips and pairs without a pause; a hostile
one sends files of the damaged-file set of ``tests.stress.media``, too large and too slow bodies,
and what is no request. Counted are answers by status, their latencies, the resident memory of the
server and its decoders over time, and vectors: the same clip and caption must have the same vector
from first to last, whatever else was sent. Only 200 and the refusals that the load asks for may
come back.
"""

import argparse
import asyncio
import datetime
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import torch

from tests.data import videos
from tests.export.runs import VIDEO, write_run
from tests.stress.media import VIDEOS, mutate
from vmm.export.command import main as export

TEXTS = ["a red circle moves left", "a circle", "red moves left a circle a red"]
REFUSALS = {408, 413, 415, 422, 429, 503}
SIZE = {**VIDEO, "depth": 8, "num_frames": 8, "image_size": 112}


def tree_memory(pid):
    """Resident MiB of a process and of its children."""
    listed = subprocess.run(
        ["ps", "-o", "rss=", "--pid", str(pid), "--ppid", str(pid)], capture_output=True, text=True
    )
    return sum(map(int, listed.stdout.split())) / 1024


class Server:
    """``vmm serve`` as a process."""

    def __init__(self, encoder, options):
        command = [sys.executable, "-m", "vmm", "serve", str(encoder), "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().split(" at ")[1].split(";")[0]

    def end(self):
        """Ask it to end; give its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


class Load:
    """What clients saw."""

    def __init__(self, url, seconds, seed):
        self.url, self.until, self.seed = url, time.monotonic() + seconds, seed
        self.begun = time.monotonic()
        self.statuses, self.wrong = Counter(), []
        self.latencies = {"text": [], "video": [], "score": []}
        self.films = [videos.make(name) for name in ("h264", "vp9", "h264 mkv", "mpeg4 avi")]
        self.right = {}

    async def one(self, client, kind, rng):
        """Send one request, and look at its answer."""
        film = rng.randrange(len(self.films))
        if kind == "text":
            request = client.post("/text", json={"texts": TEXTS[: rng.randint(1, 3)]})
        else:
            path = "/video" if kind == "video" else f"/score?text={TEXTS[0]}"
            headers = {"content-type": "video/mp4"}
            request = client.post(path, content=self.films[film], headers=headers)
        begun = time.monotonic()
        answer = await request
        self.statuses[f"{kind} {answer.status_code}"] += 1
        if answer.status_code == 200:
            self.latencies[kind].append(time.monotonic() - begun)
            self.compare(kind, film, answer.json())
        elif answer.status_code not in (429, 503) or set(answer.json()) != {"error"}:
            self.wrong.append(f"{kind}: {answer.status_code} {answer.text[:200]}")
        else:
            await asyncio.sleep(0.2)

    def compare(self, kind, film, content):
        """The same question has the same answer, up to rounding in other batches."""
        found = content[{"text": "vectors", "video": "vector", "score": "scores"}[kind]]
        found = np.array(found[0] if kind == "text" else found)
        right = self.right.setdefault((kind, 0 if kind == "text" else film), found)
        if not np.allclose(found, right, atol=1e-4):
            self.wrong.append(f"{kind} of film {film} changed by {abs(found - right).max():.1e}")

    async def client(self, number):
        """Ask until the time is over."""
        rng = random.Random(self.seed * 1000 + number)
        async with httpx.AsyncClient(base_url=self.url, timeout=120) as client:
            while time.monotonic() < self.until:
                kind = rng.choices(("text", "video", "score"), (5, 4, 1))[0]
                try:
                    await self.one(client, kind, rng)
                except httpx.HTTPError as error:
                    self.wrong.append(f"{kind}: {error!r}")

    async def hostile(self, mutants):
        """Send damaged files and bad requests; everything but an answer in JSON is wrong."""
        rng, names = np.random.default_rng(self.seed), [*VIDEOS]
        bad = {
            "large": lambda c: c.post("/video", content=b"\0" * 5_000_000),
            "form": lambda c: c.post("/video", files={"file": b"x" * 100, "b": b"y"}),
            "deep": lambda c: c.post(
                "/text", content=b"[" * 200_000, headers={"content-type": "application/json"}
            ),
            "url": lambda c: c.post("/video", json={"url": "http://127.0.0.1/"}),
            "path": lambda c: c.post("/video", content=b"/etc/passwd"),
            "many": lambda c: c.post("/text", json={"texts": ["a"] * 10_000}),
        }
        pause = max(self.until - time.monotonic(), 1) * 0.5 / mutants
        async with httpx.AsyncClient(base_url=self.url, timeout=120) as client:
            for number in range(mutants):
                file = mutate(videos.make(names[number % len(names)]), rng)
                kinds = [("damaged", lambda c, f=file: c.post("/video", content=f))]
                if number % 10 == 0:
                    kinds.append([*bad.items()][number // 10 % len(bad)])
                for name, send in kinds:
                    try:
                        answer = await send(client)
                        self.statuses[f"{name} {answer.status_code}"] += 1
                        fine = answer.status_code in ({200} if name == "damaged" else ()) or (
                            answer.status_code in REFUSALS and set(answer.json()) == {"error"}
                        )
                        if not fine:
                            self.wrong.append(f"{name}: {answer.status_code} {answer.text[:200]}")
                    except httpx.HTTPError as error:
                        self.wrong.append(f"{name}: {error!r}")
                await asyncio.sleep(pause)

    async def run(self, clients, mutants, pid, every):
        """Run all clients; give the server's memory over time."""
        memory = []

        async def watch():
            while True:
                memory.append(round(await asyncio.to_thread(tree_memory, pid), 1))
                await asyncio.sleep(every)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*map(self.client, range(clients)), self.hostile(mutants))
        watching.cancel()
        return memory


def percentiles(values):
    """Milliseconds."""
    names = ("p50", "p90", "p99", "max")
    found = np.percentile(values or [0], (50, 90, 99, 100)) * 1000
    return {"answers": len(values), **dict(zip(names, found.round(1).tolist(), strict=True))}


def torment(encoder, seconds, clients, mutants, seed=0, options=()):
    """Serve an encoder under load; give what was measured."""
    server = Server(encoder, ["--max-body-mb", "4", *options])
    try:
        load = Load(server.url, seconds, seed)
        memory = asyncio.run(load.run(clients, mutants, server.process.pid, seconds / 60))
        took = time.monotonic() - load.begun
        health = httpx.get(f"{server.url}/health").json()
        model = httpx.get(f"{server.url}/model").json()
        status = server.end()
    finally:
        server.process.kill()
    quarter = max(len(memory) // 4, 1)
    answers = sum(map(len, load.latencies.values()))
    return {
        "seconds": round(took, 1),
        "clients": clients,
        "hostile uploads": mutants,
        "answers per second": round(answers / took, 2),
        "latency ms": {kind: percentiles(found) for kind, found in load.latencies.items()},
        "requests per batch": round(health["items"] / max(health["batches"], 1), 2),
        "statuses": dict(sorted(load.statuses.items())),
        "wrong": load.wrong[:50],
        "status at the end": status,
        "growth MiB": round(max(memory[-quarter:]) - max(memory[quarter : 2 * quarter]), 1),
        "model": model,
        "MiB": memory,
    }


def write_encoder(folder, video):
    """Export an untrained encoder."""
    write_run(folder / "run", seed=0, video=video)
    if export([str(folder / "run"), str(folder / "encoder")]):
        raise SystemExit("the encoder was not exported")
    return folder / "encoder"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--mutants", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=64.0, help="MiB that may be added")
    parser.add_argument("--encoder", help="what vmm serve takes; default: untrained")
    parser.add_argument("--small", action="store_true", help="a tiny model")
    parser.add_argument("--note", default="", help="of the machine, for the result file")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="vmm-stress-") as name:
        encoder = options.encoder or write_encoder(Path(name), VIDEO if options.small else SIZE)
        found = torment(
            encoder, 60 * options.minutes, options.clients, options.mutants, options.seed
        )
    result = {
        "date": datetime.date.today().isoformat(),
        "note": options.note,
        "cores": os.cpu_count(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        **found,
    }
    print(json.dumps({key: value for key, value in result.items() if key != "MiB"}))
    if options.out is not None:
        path = options.out / f"serving_{result['date']}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
    grew = result["growth MiB"] > options.limit
    return int(bool(result["wrong"]) or grew or result["status at the end"] != 0)


if __name__ == "__main__":
    sys.exit(main())
