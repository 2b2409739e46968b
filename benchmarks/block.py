"""Where the time of one B-Mamba block goes: matrix products, scan and convolutions, the rest.

``python -m benchmarks.block [--short]``. The block's own operations are recorded once and replayed
in groups, so the parts have exactly the shapes, types and memory that they have in the block.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # documented, in spite of its name

from benchmarks import common, report
from vmm.models.mamba import BiMambaBlock
from vmm.models.scan_order import SPATIAL, ST_V1, ST_V2, TEMPORAL, BlockOrder, temporal_path
from vmm.ops.tuning.cpu_matmul import enable_fast_cpu_matmul
from vmm.ops.tuning.cpu_memory import keep_freed_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTHS = {"Ti": 192, "M": 576}  # of VideoMamba-Ti and -M
FORWARD, TRAINING = "forward", "forward+backward"
DEFAULT, ONEDNN, BFLOAT16 = "fp32", "fp32 oneDNN", "bf16 autocast"
BLOCK, MATMULS, SCAN = "block", "matrix products", "scan and convolutions"
PERMUTATIONS = "permutations"
GIVEN_BACK, KEPT = "given back", "kept"
EIGHT_FRAMES = 1569  # tokens
STEPS = 8
"""Steps of time that the tokens of a sequence are taken for where the scan order matters."""
ORDERS = {"spatial": SPATIAL, "temporal": TEMPORAL, "st_v1": ST_V1, "st_v2": ST_V2}
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "linear"}
GOALS = {"Ti": (0.30, 2.0), "M": (0.22, 1.4)}
"""At most: scan and convolutions / block, and block / matrix products; forward, fp32 oneDNN."""
PERMUTATION_GOAL = 0.05
"""At most: permutations / block, in any scan order, forward and backward, fp32 oneDNN."""

TEXT = f"""Milliseconds, the fastest of several runs, all in turns. `{MATMULS}` and `{SCAN}` are the
block's own operations replayed alone, on what they get in the block; the rest is the difference:
norm, casts, sums of gradients. `{DEFAULT}` is PyTorch's default, `{ONEDNN}` what
vmm.ops.tuning.cpu_matmul.enable_fast_cpu_matmul chooses. Freed memory is kept, as vmm's commands do
(vmm.ops.tuning.cpu_memory), but in the lines that show what giving it back costs. The bars are
those of the forward pass. Scan orders: `permutation_ms` are a block's permutations replayed alone;
temporal layers are taken one by one, where an encoder permutes once for all that follow each
other."""


class Sizes(NamedTuple):
    """How much is measured.

    Args:
        widths: Keys of ``WIDTHS``.
        lengths: Tokens.
        rounds: See ``common.Race``.
        limit_s: See ``common.Race``.
    """

    widths: tuple[str, ...]
    lengths: tuple[int, ...]
    rounds: int
    limit_s: float


SHORT = Sizes(("M",), (1569,), 3, 1.0)
LONG = Sizes(("Ti", "M"), (197, 1569, 6273, 12545), 9, 6.0)


class Recorder(TorchDispatchMode):
    """Keeps operations with their arguments.

    Args:
        kept: Which.
    """

    def __init__(self, kept: Callable[[Any], bool] = lambda function: True) -> None:
        super().__init__()
        self._kept = kept
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self._kept(function):
            self.calls.append((function, args, kwargs or {}))
        return function(*args, **kwargs or {})

    def replay(self, wanted: Callable[[Any], bool]) -> Callable[[], None]:
        """Return a call that repeats the operations that are wanted."""
        chosen = [call for call in self.calls if wanted(call[0])]

        def run() -> None:
            with torch.no_grad():
                for function, args, kwargs in chosen:
                    function(*args, **kwargs)

        return run


def is_product(function: Any) -> bool:
    """Whether an operation is a matrix product."""
    return function.namespace in ("aten", "mkldnn") and _name(function) in PRODUCTS


def is_scan(function: Any) -> bool:
    """Whether an operation is one of vmm's own: scan or convolution."""
    return bool(function.namespace == "vmm")


def is_permutation(function: Any) -> bool:
    """Whether an operation puts tokens into another order."""
    return function.namespace == "aten" and _name(function) == "index_select"


def _name(function: Any) -> str:
    return str(function.overloadpacket.__name__).strip("_")


def precisions() -> list[str]:
    """Return the ways to compute products that make a difference here."""
    if common.device().type == "cuda":
        return [DEFAULT, BFLOAT16]
    enable_fast_cpu_matmul()
    fast = torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision("highest")
    return [DEFAULT, ONEDNN, BFLOAT16] if fast else [DEFAULT, BFLOAT16]


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Compute with one of the ``precisions``."""
    lowered: AbstractContextManager[Any] = nullcontext()
    if precision == BFLOAT16:
        lowered = torch.autocast(common.device().type, torch.bfloat16)
    torch.set_float32_matmul_precision("medium" if precision == ONEDNN else "highest")
    try:
        with lowered:
            yield
    finally:
        torch.set_float32_matmul_precision("highest")


def parts(
    width: str, length: int, backward: bool, precision: str, order: BlockOrder = SPATIAL
) -> dict[str, Callable[[], None]]:
    """Return the block and its groups of operations, as calls."""
    torch.manual_seed(0)
    block = BiMambaBlock(WIDTHS[width], d_state=16, d_conv=4, expand=2).to(common.device())
    block.mixer.reset_parameters("mamba", 1)
    x = torch.randn(1, length, WIDTHS[width], device=common.device()).requires_grad_(backward)
    path = temporal_path(STEPS, (length - 1) // STEPS, x.device)
    assert path is not None

    def whole() -> None:
        with torch.set_grad_enabled(backward):
            laid = x if order.home == "spatial" else path.apply(x)
            out: Tensor = block(laid, order.scans(path, order.home))
            out = out if order.home == "spatial" else path.undo(out)
        if backward:
            torch.autograd.grad(out, [x, *block.parameters()], out.detach())

    def with_precision(call: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            with computing(precision):
                call()

        return run

    with_precision(whole)()
    with Recorder() as recorder:
        with_precision(whole)()
    found = {
        BLOCK: whole,
        MATMULS: recorder.replay(is_product),
        SCAN: recorder.replay(is_scan),
        PERMUTATIONS: recorder.replay(is_permutation),
    }
    return {name: with_precision(call) for name, call in found.items()}


def measure(sizes: Sizes, ways: list[str], freed: str) -> list[dict[str, Any]]:
    """Time block and parts; all precisions of a case run in turns.

    Args:
        sizes: How much.
        ways: Of ``precisions``.
        freed: What happens to freed memory, for the report.
    """
    rows = []
    cases = list(itertools.product(sizes.widths, (FORWARD, TRAINING), sizes.lengths))
    for width, what, length in report.progress(cases, "block"):
        running = {
            (way, part): call
            for way in ways
            for part, call in parts(width, length, what == TRAINING, way).items()
        }
        named = {f"{way}|{part}": call for (way, part), call in running.items()}
        times = common.Race(sizes.rounds, sizes.limit_s).run(length, named)
        for way in ways:
            block, products, scan = (
                1e3 * times[f"{way}|{part}"].fastest for part in (BLOCK, MATMULS, SCAN)
            )
            rows.append(
                {
                    "width": width,
                    "pass": what,
                    "tokens": length,
                    "precision": way,
                    "freed memory": freed,
                    "block_ms": block,
                    "products_ms": products,
                    "scan_ms": scan,
                    "rest_ms": block - products - scan,
                    "scan_share": scan / block,
                    "block_to_products": block / products,
                }
            )
    return rows


def measure_orders(sizes: Sizes, way: str) -> list[dict[str, Any]]:
    """Time a block in every scan order, and its permutations; all orders run in turns.

    Args:
        sizes: How much; of the lengths, those that are several steps of time.
        way: Of ``precisions``.
    """
    rows = []
    lengths = [length for length in sizes.lengths if (length - 1) % STEPS == 0]
    cases = list(itertools.product(sizes.widths, (FORWARD, TRAINING), lengths))
    for width, what, length in report.progress(cases, "orders"):
        named = {
            f"{name}|{part}": call
            for name, order in ORDERS.items()
            for part, call in parts(width, length, what == TRAINING, way, order).items()
            if part in (BLOCK, PERMUTATIONS)
        }
        times = common.Race(sizes.rounds, sizes.limit_s).run(length, named)
        spatial = times[f"spatial|{BLOCK}"].fastest
        for name in ORDERS:
            block, permutations = (
                times[f"{name}|{part}"].fastest for part in (BLOCK, PERMUTATIONS)
            )
            rows.append(
                {
                    "width": width,
                    "pass": what,
                    "tokens": length,
                    "precision": way,
                    "scan order": name,
                    "block_ms": 1e3 * block,
                    "permutation_ms": 1e3 * permutations,
                    "permutation_share": permutations / block,
                    "block_to_spatial": block / spatial,
                }
            )
    return rows


def bars(rows: list[dict[str, Any]]) -> list[report.Bar]:
    """Return the promises, and what became of them."""
    found = []
    for row in rows:
        if "scan order" in row:
            if row["scan order"] != "spatial":
                what = f"{row['scan order']}, {row['width']}, {row['pass']}, {row['tokens']} tokens"
                share = row["permutation_share"]
                name = f"{PERMUTATIONS} : block, {what}"
                found.append(report.Bar(name, PERMUTATION_GOAL, share, at_most=True))
            continue
        kind = row["pass"], row["precision"], row["freed memory"]
        if kind == (FORWARD, ONEDNN, KEPT) and row["tokens"] >= EIGHT_FRAMES:
            share, ratio = GOALS[row["width"]]
            where = f"{row['width']}, {row['tokens']} tokens"
            name = f"{SCAN} : block, {where}"
            found.append(report.Bar(name, share, row["scan_share"], at_most=True))
            name = f"block : {MATMULS}, {where}"
            found.append(report.Bar(name, ratio, row["block_to_products"], at_most=True))
    return found


def build(rows: list[dict[str, Any]], settings: dict[str, Any]) -> report.Report:
    """Return the report on all rows."""
    tables = {}
    for title, ordered in (("Times and ratios", False), ("Scan orders", True)):
        chosen = [row for row in rows if ("scan order" in row) == ordered]
        lines = [
            [x if isinstance(x, str) else report.number(x) for x in r.values()] for r in chosen
        ]
        tables[title] = report.table(list(chosen[0]), lines)
    title = f"One B-Mamba block on {common.place()}"
    return report.Report("block", title, TEXT, settings, rows, tables, bars(rows), [])


def _cells(row: dict[str, Any]) -> list[str]:
    return [x if isinstance(x, str) else report.number(x) for x in row.values()]


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw the shares of the block's time, stacked; one panel for each width and pass."""
    rows = [row for row in rows if "scan order" not in row]
    panels = list(dict.fromkeys((row["width"], row["pass"]) for row in rows))
    figure, axes = report.new_figure(2, -(-len(panels) // 2))
    parts = {"products_ms": MATMULS, "scan_ms": SCAN, "rest_ms": "rest"}
    lengths = {row["tokens"] for row in rows}
    length = EIGHT_FRAMES if EIGHT_FRAMES in lengths else max(lengths)
    for axis, (width, what) in zip(axes.flatten(), panels, strict=False):
        kind = width, what, length
        chosen = [row for row in rows if (row["width"], row["pass"], row["tokens"]) == kind]
        names = [f"{row['precision']}\nfreed memory {row['freed memory']}" for row in chosen]
        below = [0.0] * len(chosen)
        for field, name in parts.items():
            heights = [100 * row[field] / row["block_ms"] for row in chosen]
            axis.barh(names, heights, left=below, label=name)
            below = [low + height for low, height in zip(below, heights, strict=True)]
        for place, row in enumerate(chosen):
            axis.text(101, place, f"{report.number(row['block_ms'])} ms", va="center", fontsize=8)
        axis.set(title=f"{width}, {what}, {length} tokens", xlim=(0, 120))
        axis.set(xlabel="share of the block's time, %", xticks=range(0, 101, 20))
        axis.tick_params(axis="y", labelsize=8)
        axis.invert_yaxis()
    handles, labels = axes.flatten()[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def main() -> None:
    """Measure, and write the three files."""
    options = report.options("benchmarks.block", __doc__, "one length")
    sizes = SHORT if options.short else LONG
    ways = precisions()
    rows = measure(sizes, [way for way in ways if way == ONEDNN], GIVEN_BACK)
    keep_freed_memory()
    rows += measure(sizes, ways, KEPT)
    rows += measure_orders(sizes, ONEDNN if ONEDNN in ways else DEFAULT)
    page = build(rows, sizes._asdict()).write(options, draw(rows))
    print(page.read_text("utf-8"))


if __name__ == "__main__":
    main()
