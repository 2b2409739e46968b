"""Whether 64 ranks x 8 workers ever wait for data: vmm's own order of samples, a simulated clock.

python -m benchmarks.loading [--short] [--output FOLDER]
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from benchmarks import report
from benchmarks.loading_plan import (
    Cluster,
    Corpus,
    Plan,
    audit,
    indexed_plan,
    resampled_plan,
    steps_for,
)

INDEXED, RESAMPLED = "indexed shards", "shards behind URLs"
TEXT = (
    "Which sample each rank and worker reads, and when, is said by vmm's own code "
    "(`TrainStream`, `ResampledStream`, with `Mixture`, `ShardOrder` and `StepPlan`) on shards "
    "that are only counts. Time is simulated: a worker handles its samples one after the other, "
    "each costs requests (first byte after a lognormal latency), bytes over one connection, and "
    "CPU time; PyTorch's loader asks a worker for `prefetch` batches ahead and hands batches out "
    "in order; a step begins when every rank has its batch. `pace` is the shortest step that the "
    "loader keeps up with. `waiting` is the share of the time that the job stands still for data, "
    "after the first batches. The network of a node and the cores of a machine have room for all "
    "connections and workers here; `GB/s per node` of 8 ranks says how much room that is."
)


class Storage(NamedTuple):
    """How one connection to the storage answers."""

    name: str
    latency_s: float
    """Median seconds to the first byte of a request."""
    spread: float
    """Standard deviation of the latency's logarithm."""
    bytes_per_s: float


class Layout(NamedTuple):
    """What a sample costs; bytes and decoding as measured by ``benchmarks.decode`` (2026-11-23)."""

    name: str
    bytes: float
    cpu_s: float
    """Of one worker: decoding and 13 ms for augmentation and batching."""


DISK = Storage("local disk", 1e-4, 0.3, 2e9)
OBJECTS = Storage("object storage", 0.03, 0.6, 60e6)
JPEG = Layout("JPEG pictures, 256p", 642 * 1024, 0.0035 + 0.013)
MP4 = Layout("mp4, 360p, GOP 30", 1755 * 1024, 0.0934 + 0.013)
INDEX_S = 6e-6
"""Seconds of reading one sample's entry of an index: 26 ms for 4,000."""
SIZE_SPREAD = 0.5
"""Standard deviation of the logarithm of samples' bytes."""
REQUESTS = {INDEXED: 1, RESAMPLED: 0}
"""Of each sample: one read of its neighbouring members; a shard read whole needs none."""
OPENING = {INDEXED: 2, RESAMPLED: 1}
"""Requests for a shard that is new to a worker: its index and its first bytes."""


class Sizes(NamedTuple):
    """What is simulated."""

    cluster: Cluster
    stage1: Corpus
    stage2: dict[str, Corpus]
    steps_s: tuple[float, ...]
    """Seconds of a training step."""


LONG = Sizes(
    Cluster(64, 8, 32),
    Corpus("video", 240_436, 1000),
    {
        "webvid": Corpus("video", 50_003, 1000),
        "cc3m": Corpus("image", 40_001, 1000),
        "sbu": Corpus("image", 15_007, 1000),
    },
    (0.05, 0.1, 0.2, 0.5, 1.0),
)
SHORT = LONG._replace(stage1=Corpus("video", 60_109, 250))
PREFETCH = 2
"""Batches of each worker ahead: PyTorch's default, which vmm keeps."""
SLOW_RANK, SLOW = 5, 5.0


def work(
    plan: Plan,
    kind: str,
    per_shard: int,
    storage: Storage,
    layout: Layout,
    slow: dict[int, float] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Return the seconds, (K, ranks), that a worker needs for each batch.

    Args:
        plan: Who reads what.
        kind: How the shards are read.
        per_shard: Samples of a shard.
        storage: Where they are.
        layout: What they are.
        slow: Rank -> by what factor its storage is slower.
        seed: Of latencies and sizes.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.lognormal(-(SIZE_SPREAD**2) / 2, SIZE_SPREAD, int(plan.sample.max()) + 1)
    requests = plan.read * REQUESTS[kind] + plan.opened * OPENING[kind]
    most = int(requests.max())
    latency = rng.lognormal(np.log(storage.latency_s), storage.spread, (*requests.shape, most))
    waiting = np.where(np.arange(most) < requests[..., None], latency, 0).sum(-1)
    share = plan.read / plan.sample.shape[-1]
    reading = sizes[plan.sample].sum(-1) * share * layout.bytes / storage.bytes_per_s
    from_storage = waiting + reading
    for rank, factor in (slow or {}).items():
        from_storage[:, rank] *= factor
    index = INDEX_S * per_shard * plan.opened if kind == INDEXED else 0.0
    return from_storage + index + plan.sample.shape[-1] * layout.cpu_s


class Played(NamedTuple):
    """What a training of some steps would have seen; seconds."""

    first: float
    """Until the first step began."""
    waits: np.ndarray
    """(K, ranks) of each rank for its own batch."""
    step_s: float
    workers: int
    """Of each rank."""

    def waiting(self, after: int) -> float:
        """Share of the time that all wait for the slowest, from a step on."""
        lost = self.waits[after:].max(1).sum()
        return float(lost / (lost + self.step_s * len(self.waits[after:])))

    def pace(self, after: int) -> float:
        """Seconds from step to step, over whole rounds of the workers: batches come in bursts."""
        rounds = (len(self.waits) - after) // self.workers * self.workers
        return float(self.waits[after : after + rounds].max(1).mean()) + self.step_s


def play(seconds: np.ndarray, step_s: float, workers: int, prefetch: int) -> Played:
    """Let PyTorch's loader hand out batches to synchronous ranks.

    Args:
        seconds: (K, ranks) of making each batch.
        step_s: Of a training step.
        workers: Of each rank; batch k is made by worker k modulo their number.
        prefetch: Batches that a worker is asked for ahead; 0 = a batch is made when it is wanted.
    """
    count, ranks = seconds.shape
    free = np.zeros((workers, ranks))
    taken = np.zeros((count, ranks))
    waits = np.zeros((count, ranks))
    end = 0.0
    for number in range(count):
        ahead = number - prefetch * workers  # its place is free when that one is taken
        asked = np.zeros(ranks) if ahead < 0 else taken[ahead]
        if not prefetch:
            asked = np.full(ranks, end)
        ready = np.maximum(free[number % workers], asked) + seconds[number]
        free[number % workers] = ready
        taken[number] = np.maximum(ready, end)
        waits[number] = taken[number] - end
        end = float(taken[number].max()) + step_s
    return Played(float(waits[0].max()), waits, step_s, workers)


def plans(sizes: Sizes) -> tuple[dict[str, Plan], list[dict[str, Any]]]:
    """Ask vmm's code who reads what; return the plans of stage 1, and what all of them saw."""
    cluster, stage1 = sizes.cluster, sizes.stage1
    steps = steps_for(2, [stage1], cluster)
    found = {INDEXED: indexed_plan({"": stage1}, cluster, steps)}
    found[RESAMPLED] = resampled_plan(stage1, cluster, steps)
    both = list(sizes.stage2.values())
    mixed = indexed_plan(sizes.stage2, cluster, steps_for(1, both, cluster))
    cases = (
        (INDEXED, "stage 1", found[INDEXED], [stage1]),
        (INDEXED, "stage 2", mixed, both),
        (RESAMPLED, "stage 1", found[RESAMPLED], [stage1]),
    )
    rows = []
    for kind, stage, plan, corpora in cases:
        row = {"read": kind, "stage": stage, "samples": sum(c.samples for c in corpora)}
        rows.append(row | {"batches": int(plan.read.size)} | audit(plan, corpora))
    return found, rows


def ends(plan: Plan, sizes: Sizes) -> list[dict[str, Any]]:
    """Say how many samples an epoch takes from the last quarter of a shard; a quarter is fair."""
    size, each = sizes.stage1.per_shard, sizes.cluster.ranks * sizes.cluster.batch
    rows = []
    for passes in (0.1, 0.5, 1, 2):
        steps = max(1, round(passes * sizes.stage1.samples / each))
        place = plan.sample[:steps].reshape(-1) % size
        rows.append({"epoch in passes": passes, "steps": steps})
        rows[-1]["from the last quarter"] = float((place >= 0.75 * size).mean())
    return rows


def timed(plan: Plan, kind: str, sizes: Sizes) -> list[dict[str, Any]]:
    """Play both storages and both layouts."""
    workers = sizes.cluster.workers
    warm = PREFETCH * workers
    rows = []
    for storage in (DISK, OBJECTS):
        for layout in (JPEG, MP4):
            seconds = work(plan, kind, sizes.stage1.per_shard, storage, layout)
            pace = play(seconds, 0.0, workers, PREFETCH).pace(warm)
            node = 8 * sizes.cluster.batch * layout.bytes / pace / 1e9
            row = {"read": kind, "storage": storage.name, "layout": layout.name}
            row |= {"pace, s": pace, "GB/s per node": node}
            row["first step, s"] = play(seconds, 1.0, workers, PREFETCH).first
            for step_s in sizes.steps_s:
                played = play(seconds, step_s, workers, PREFETCH)
                row[f"waiting at {step_s:g} s"] = played.waiting(warm)
            rows.append(row)
    return rows


def depths(plan: Plan, kind: str, sizes: Sizes) -> list[dict[str, Any]]:
    """Change how far workers are ahead, and slow one rank's storage down; object storage, JPEG."""
    workers = sizes.cluster.workers
    case = plan, kind, sizes.stage1.per_shard, OBJECTS, JPEG
    seconds, slowed = work(*case), work(*case, slow={min(SLOW_RANK, sizes.cluster.ranks - 1): SLOW})
    step_s = 1.2 * play(seconds, 0.0, workers, PREFETCH).pace(PREFETCH * workers)
    rows = []
    for prefetch in (0, 1, 2, 4):
        warm = max(1, prefetch) * workers
        row = {"read": kind, "prefetch": prefetch, "step, s": step_s}
        row["waiting"] = play(seconds, step_s, workers, prefetch).waiting(warm)
        slow = play(slowed, step_s, workers, prefetch)
        row["waiting, one rank slow"] = slow.waiting(warm)
        row["pace, one rank slow, s"] = slow.pace(warm)
        rows.append(row)
    return rows


def variants(sizes: Sizes) -> list[dict[str, Any]]:
    """Change the size of shards and the number of workers: indexed, JPEG pictures."""
    rows = []
    own, usual = sizes.stage1.per_shard, sizes.cluster.workers
    for per_shard, workers in ((own // 4, usual), (own * 4, usual), (own, 12), (own, 20)):
        cluster = sizes.cluster._replace(workers=workers)
        corpus = sizes.stage1._replace(per_shard=per_shard)
        warm = PREFETCH * workers
        plan = indexed_plan({"": corpus}, cluster, 2 * warm + 16)
        row = {"samples per shard": per_shard, "workers": workers}
        row["shards opened per batch"] = float(plan.opened[warm:].mean())
        for storage in (DISK, OBJECTS):
            seconds = work(plan, INDEXED, per_shard, storage, JPEG)
            row[f"pace, s, {storage.name}"] = play(seconds, 0.0, workers, PREFETCH).pace(warm)
        rows.append(row)
    return rows


def bars(rows: list[dict[str, Any]], fair: list[dict[str, Any]]) -> list[report.Bar]:
    """Return what an order of samples promises, and what was seen of steps of a second."""
    exact = [row for row in rows if row["read"] == INDEXED]
    waits = [row["waiting at 1 s"] for row in fair if "waiting at 1 s" in row]
    return [
        report.Bar("samples repeated in a pass", 0, sum(r["repeated"] for r in exact), True),
        report.Bar("samples lost from a pass", 0, sum(r["lost"] for r in exact), True),
        report.Bar("share of waiting, steps of 1 s, any storage", 0.01, max(waits), True),
    ]


def draw(rows: list[dict[str, Any]], sizes: Sizes) -> Any:
    """Draw the share of waiting over the length of a step."""
    figure, axes = report.new_figure(2)
    for axis, kind in zip(axes[0], (INDEXED, RESAMPLED), strict=True):
        for row in (row for row in rows if row["read"] == kind):
            waiting = [row[f"waiting at {step_s:g} s"] for step_s in sizes.steps_s]
            axis.plot(sizes.steps_s, waiting, "o-", label=f"{row['storage']}, {row['layout']}")
        axis.set(xscale="log", xlabel="step, s", ylabel="share of waiting", title=kind)
    lines = axes[0, 0].get_legend_handles_labels()
    figure.legend(*lines, fontsize=8, loc="outside lower center", ncols=2)
    return figure


def as_table(rows: list[dict[str, Any]]) -> str:
    """Write rows of equal keys."""
    lines = [
        [report.number(v) if isinstance(v, float) else f"{v}" for v in row.values()] for row in rows
    ]
    return report.table(list(rows[0]), lines)


def main() -> None:
    """Simulate and write the report."""
    given = report.options("benchmarks.loading", __doc__ or "", "a quarter of the samples")
    sizes = SHORT if given.short else LONG
    found, counted = plans(sizes)
    played = [row for kind, plan in found.items() for row in timed(plan, kind, sizes)]
    deep = [row for kind, plan in found.items() for row in depths(plan, kind, sizes)]
    varied, late = variants(sizes), ends(found[RESAMPLED], sizes)
    cases = {
        "Once in a pass": counted,
        "Waiting": played,
        f"Prefetching, and storage of rank {SLOW_RANK} {SLOW:g} times slower": deep,
        "Shards and workers": varied,
        "What shards behind URLs give of their ends": late,
    }
    cluster = sizes.cluster
    page = report.Report(
        name="loading",
        title=f"Loading on {cluster.ranks} ranks x {cluster.workers} workers, simulated",
        text=TEXT,
        settings={
            "cluster": cluster._asdict(),
            "prefetch": PREFETCH,
            "storage": [storage._asdict() for storage in (DISK, OBJECTS)],
            "layouts": [layout._asdict() for layout in (JPEG, MP4)],
        },
        rows=[{"task": name} | row for name, rows in cases.items() for row in rows],
        tables={name: as_table(rows) for name, rows in cases.items()},
        bars=bars(counted, played),
        notes=[],
    )
    print(page.write(given, draw(played, sizes)).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
