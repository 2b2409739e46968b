"""SIGKILL to ``vmm index --approximate`` at random moments, on an index that changes meanwhile.

    python -m tests.stress.lists --kills 30 --out tests/stress/results

Before each kill some videos come, change and go; every tenth time the parts are put together. Half
of the kills come at any moment, half while the lists are being written. After each the index opens,
exact search finds what comparing with everything finds, and what approximate search finds is there
with its cosine, or the error says what to do. The same command then ends well, and nothing else is
left in the folder.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tests.search.plain import PlainEncoder
from tests.stress.resume import write_result
from vmm.search.approximate import FILE, size_of_lists, verify_lists
from vmm.search.index import Index, Settings
from vmm.search.parts import Record
from vmm.search.query import Searcher
from vmm.search.sources import Source

WIDTH, MOMENTS, TOP, QUERIES, SOME = 64, 10, 10, 20, 50


class Collection:
    """An index, and what should be in it.

    Args:
        folder: Of the index, new.
        videos: How many; more than 6,553, or lists are not used.
        seed: Of the vectors.
    """

    def __init__(self, folder, videos, seed):
        self.rng, self.version = np.random.default_rng(seed), 0
        self.index = Index.create(folder, Settings(PlainEncoder.fingerprint, "p", WIDTH, 1.0, 1.0))
        self.centres = self.unit(self.rng.standard_normal((300, WIDTH)))
        self.right = {}
        self.put([f"{number:05d}" for number in range(videos)])

    @staticmethod
    def unit(rows):
        return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)

    def near_centres(self, count):
        of = self.centres[self.rng.integers(0, len(self.centres), count)]
        return self.unit(of + 0.1 * self.rng.standard_normal(of.shape))

    def put(self, names, gone=()):
        """Add or change videos, in a part, and forget others."""
        self.version += 1
        rows = self.near_centres(len(names) * MOMENTS)
        digest = str(self.version)
        records = [Record(f"/v/{n}", "", digest=digest, count=MOMENTS, done=True) for n in names]
        times = [(float(i), i + 1.0) for i in range(MOMENTS)] * len(names)
        self.index.add(records, times, list(rows), [Source(Path(f"/v/{name}")) for name in gone])
        self.right = {name: rows for name, rows in self.right.items() if name not in gone}
        self.right |= dict(zip(names, rows.reshape(-1, MOMENTS, WIDTH), strict=True))

    def change(self):
        """Let some videos come, change and go."""
        some = self.rng.choice(sorted(self.right), 2 * SOME, replace=False).tolist()
        new = [f"new-{self.version}-{number}" for number in range(SOME)]
        self.put([*some[:SOME], *new], gone=some[SOME:])

    def wrong(self, searcher, exact):
        """Compare what a searcher finds with everything; give what is wrong, and the recall."""
        names, table = list(self.right), np.concatenate(list(self.right.values()))
        problems, found = [], 0
        for query in self.near_centres(QUERIES):
            cosines = table @ query
            least = np.sort(cosines)[-TOP] - 1e-5
            hits = searcher.search(query, TOP)
            for hit in hits:
                name, number = hit.source.path.name, round(hit.start)
                known = self.right[name][number] @ query if name in self.right else -1
                if abs(known - hit.similarity) > 1e-5:
                    problems.append(f"{name} at {number}: {hit.similarity}, not {known}")
            found += sum(hit.similarity >= least for hit in hits)
        recall = found / TOP / QUERIES
        if len(self.right) != len(searcher.sources) or recall < (1 if exact else 0.9):
            problems.append(f"{len(searcher.sources)} of {len(names)} videos, recall {recall}")
        return problems

    def looked_at(self, must):
        """Open and search both ways; give what is wrong."""
        index = Index.open(self.index.folder)
        problems = self.wrong(Searcher(index, PlainEncoder()), exact=True)
        try:
            near = Searcher(index, PlainEncoder(), approximate=True)
        except ValueError as error:
            told = f"`vmm index {index.folder} --approximate` makes it" in str(error)
            return problems if told and not must else [*problems, str(error)]
        assert near._lists.probes < len(near._lists.centroids)
        return problems + self.wrong(near, exact=False)


def start(folder):
    command = [sys.executable, "-m", "vmm", "index", str(folder), "--approximate"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def partials(folder):
    return list(folder.glob(f".{FILE}.*"))


def kill_once(collection, number, rng, span):
    """Kill the command and let it run again; give what is wrong, and whether it was writing."""
    folder = collection.index.folder
    collection.change()
    if number % 10 == 9:
        collection.index.reload()
        collection.index.compact()
    process = start(folder)
    if number % 2:
        time.sleep(rng.uniform(0, span))
    else:
        end = time.monotonic() + 60
        while not partials(folder) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.0005)
        time.sleep(rng.choice((0, rng.uniform(0, 0.1))))
    process.kill()
    process.communicate()
    torn = bool(partials(folder))
    problems = collection.looked_at(must=False)
    again = start(folder)
    _, said = again.communicate()
    if again.returncode != 0:
        problems.append(f"status {again.returncode}: {said[-600:]}")
    left = {path.name for path in folder.iterdir()} - {"index.json", "parts", FILE}
    problems += [f"left behind: {name}" for name in left]
    index = Index.open(folder)
    problems += verify_lists(index)
    if size_of_lists(index)[0] != index.num_moments:
        problems.append(f"lists know {size_of_lists(index)[0]} of {index.num_moments}")
    return problems + collection.looked_at(must=True), torn


def drill(folder, choice):
    """Kill so many times; give the figures."""
    collection = Collection(folder / "index", choice.videos, choice.seed)
    started = time.monotonic()
    if start(collection.index.folder).wait() != 0:
        raise RuntimeError("the command fails")
    span = time.monotonic() - started
    rng = random.Random(choice.seed)
    wrong, in_writing = [], 0
    for number in tqdm(range(choice.kills), unit="kill"):
        problems, torn = kill_once(collection, number, rng, span)
        in_writing += torn
        if problems:
            wrong.append({"kill": number, "problems": problems[:5]})
    return {
        "kills": choice.kills,
        "killed while writing": in_writing,
        "moments": MOMENTS * choice.videos,
        "seed": choice.seed,
        "seconds": round(time.monotonic() - started),
        "wrong": wrong,
    }


def main():
    """Run the drill; status 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="tests.stress.lists", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--videos", type=int, default=7_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for a dated report")
    choice = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = drill(Path(folder), choice)
    print(json.dumps(figures))
    if choice.out:
        write_result(choice.out, "lists", figures)
    return int(bool(figures["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
