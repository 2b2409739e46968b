"""Whole training steps beside their floor: their own matrix products and scans, replayed alone.

``python -m benchmarks.step [--short]``: forward, backward and optimizer of both stages, as
``vmm fit`` computes them, without loading and without Lightning. The operations of a step are
recorded once, and those that no implementation can do without are replayed with the arguments that
they have in the step.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from benchmarks import block, common, report
from vmm.models.clip_vit import ClipTeacher
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.videomamba import VideoMamba
from vmm.ops.tuning.cpu_memory import keep_freed_memory
from vmm.ops.tuning.cpu_setup import tune_cpu
from vmm.optim import fuse_on_cpu
from vmm.tasks.base import TrainingTask
from vmm.tasks.masked_pretrain import MaskedPretrainTask
from vmm.tasks.video_text import VideoTextTask
from vmm.types import VideoTextBatch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOAL = 1.2
"""At most: step / floor."""
STEP, PRODUCTS, SCAN = "step", "products and attention", "scan and convolutions"
_ENCODERS = Path(__file__).parents[1] / "recipes" / "encoders"
_OPTIMIZER = partial(torch.optim.AdamW, lr=1e-4)

TEXT = f"""`{PRODUCTS}` and `{SCAN}` are the step's own operations, of forward and
backward, replayed alone with the arguments that they have in it; their sum is the floor. The rest
is everything else: norms, activations, copies, masks and draws, losses, the optimizer, Python. Both
stages train a VideoMamba, stage 1 with a frozen CLIP-ViT beside it, stage 2 with BERT, matching and
masked words. Of M, BERT-base and ViT-B/16 a quarter of the layers is taken, at their widths, so
that 32 frames fit."""


def text() -> str:
    """Return what the page says, with the clock of this device."""
    on_cpu = common.device().type == "cpu"
    clock = "Seconds of one CPU thread" if on_cpu else "Seconds of a GPU, under bfloat16 autocast"
    return f"{clock}, the fastest of several runs, all in turns. {TEXT}"


class Case(NamedTuple):
    """Which step is measured.

    Args:
        name: Of the encoder.
        stage: 1 or 2.
        width: D of the video encoder.
        depth: Its layers.
        frames: T.
        size: Side of a frame, pixels.
        clips: B.
        text: BERT's width, layers and the first one that looks at the video.
        teacher: CLIP-ViT's width and layers.
    """

    name: str
    stage: int
    width: int
    depth: int
    frames: int
    size: int
    clips: int
    text: tuple[int, int, int]
    teacher: tuple[int, int]


class Sizes(NamedTuple):
    """How much is measured.

    Args:
        cases: The steps.
        rounds: See ``common.Race``.
    """

    cases: tuple[Case, ...]
    rounds: int


DEMO = tuple(Case("demo", stage, 128, 4, 4, 64, 64, (128, 3, 2), (128, 4)) for stage in (1, 2))
MIDDLE = tuple(
    Case("M", stage, 576, 8, frames, 224, 2, (768, 3, 2), (768, 3))
    for frames in (8, 32)
    for stage in (1, 2)
)
SHORT = Sizes(DEMO, 5)
LONG = Sizes(DEMO + MIDDLE, 3)
ON_GPU = Sizes(tuple(case._replace(clips=16) for case in MIDDLE if case.frames == 8), 7)


def build_task(case: Case, folder: Path) -> TrainingTask:
    """Build the task of a case, with random weights.

    Args:
        case: The case.
        folder: For the files that describe the towers.
    """
    torch.manual_seed(0)
    encoder = VideoMamba(case.width, case.depth, case.frames, case.size, num_taps=2 - case.stage)
    if case.stage == 1:
        teacher = _teacher(case, folder)
        teacher.build()
        return MaskedPretrainTask(video_encoder=encoder, teacher=teacher, optimizer=_OPTIMIZER)
    words = _vocabulary(case, folder)
    text = partial(
        BertTextEncoder, name=str(words), fusion_layer=case.text[2], pretrained=False, max_words=32
    )
    return VideoTextTask(video_encoder=encoder, text_encoder=text, optimizer=_OPTIMIZER)


def _teacher(case: Case, folder: Path) -> ClipTeacher:
    width, layers = case.teacher
    config = json.loads((_ENCODERS / "clip_vit_demo.json").read_text("utf-8"))
    config["vision_cfg"] |= {"image_size": case.size, "layers": layers, "width": width}
    config["vision_cfg"]["head_width"] = min(64, width // 4)
    path = folder / f"teacher_{case.name}.json"
    path.write_text(json.dumps(config), "utf-8")
    return ClipTeacher(str(path), None, case.size)


def _vocabulary(case: Case, folder: Path) -> Path:
    """Write a BERT of the case's width, with as many words as the usual one if it is as wide."""
    width, layers, _ = case.text
    path = folder / f"bert_{case.name}"
    path.mkdir(exist_ok=True)
    words = (_ENCODERS / "bert_demo" / "vocab.txt").read_text("utf-8").split("\n")
    words = [word for word in words if word]
    words += [f"[unused{n}]" for n in range(30522 - len(words))] if width == 768 else []
    (path / "vocab.txt").write_text("\n".join(words), "utf-8")
    config = json.loads((_ENCODERS / "bert_demo" / "config.json").read_text("utf-8"))
    config |= {"vocab_size": len(words), "hidden_size": width, "num_hidden_layers": layers}
    if width == 768:
        config |= {"num_attention_heads": 12, "intermediate_size": 3072}
        config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    return path


def batch_of(case: Case) -> VideoTextBatch:
    """Return clips of noise with different captions."""
    shape = case.clips, case.frames, 3, case.size, case.size
    colours = ("red", "green", "blue", "yellow")
    return {
        "video": torch.randn(shape, device=common.device()),
        "text": [f"a {colours[n % 4]} circle moves from left to right" for n in range(case.clips)],
        "idx": torch.arange(case.clips, device=common.device()),
        "key": [f"noise/{n}" for n in range(case.clips)],
        "media": "video",
    }


def is_product(function: Any) -> bool:
    """Whether an operation is a matrix product, an attention or the embedding of patches."""
    name = str(function.overloadpacket.__name__)
    whole = ("dot_product_attention", "multi_head_attention", "convolution")
    ours = block.is_scan(function)
    return block.is_product(function) or (not ours and any(part in name for part in whole))


def calls_of(case: Case, folder: Path) -> dict[str, Callable[[], object]]:
    """Return the step of a case, and its operations that are its floor."""
    task = build_task(case, folder)
    task.to(common.device()).train()
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = _OPTIMIZER(trained)
    fuse_on_cpu(optimizer)
    batch = batch_of(case)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_available()):
            loss = task.compute_losses(batch).total
        loss.backward()
        optimizer.step()

    step()
    with block.Recorder(lambda f: is_product(f) or block.is_scan(f)) as recorder:
        step()
    products, scan = recorder.replay(is_product), recorder.replay(block.is_scan)
    return {STEP: step, PRODUCTS: products, SCAN: scan}


def measure(sizes: Sizes) -> list[dict[str, Any]]:
    """Time the steps and their floors."""
    rows = []
    with TemporaryDirectory() as name:
        for case in report.progress(sizes.cases, "step"):
            times = common.Race(sizes.rounds, limit_s=90.0).run(1, calls_of(case, Path(name)))
            step, products, scan = (times[part].fastest for part in (STEP, PRODUCTS, SCAN))
            rows.append(
                {
                    "encoder": case.name,
                    "stage": case.stage,
                    "frames": case.frames,
                    "clips": case.clips,
                    "step_s": step,
                    "products_s": products,
                    "scan_s": scan,
                    "rest_s": step - products - scan,
                    "step_to_floor": step / (products + scan),
                    "runs": times[STEP].runs,
                }
            )
    return rows


def title_of(row: dict[str, Any]) -> str:
    """Name a row."""
    return f"{row['encoder']}, stage {row['stage']}, {row['frames']} frames"


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw the shares of a step's time, stacked."""
    figure, axes = report.new_figure(1)
    axis = axes[0][0]
    below: dict[str, float] = defaultdict(float)
    parts = {"products_s": PRODUCTS, "scan_s": SCAN, "rest_s": "rest"}
    for field, label in parts.items():
        shares = [100 * row[field] / row["step_s"] for row in rows]
        names = [title_of(row) for row in rows]
        axis.barh(names, shares, left=[below[name] for name in names], label=label)
        for name, share in zip(names, shares, strict=True):
            below[name] += share
    axis.set(xlabel="share of the step's time, %", xlim=(0, 100))
    axis.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def main() -> None:
    """Measure, and write the three files."""
    options = report.options("benchmarks.step", __doc__, "the demo's model only")
    tune_cpu()
    keep_freed_memory()
    sizes = SHORT if options.short else LONG
    if common.device().type == "cuda":
        sizes = ON_GPU
    rows = measure(sizes)
    cells = [
        [report.number(x) if isinstance(x, float) else str(x) for x in r.values()] for r in rows
    ]
    bars = [
        report.Bar(f"step : floor, {title_of(row)}", GOAL, row["step_to_floor"], at_most=True)
        for row in rows
    ]
    page = report.Report(
        "step",
        f"Training steps and their floor on {common.place()}",
        text(),
        {"rounds": sizes.rounds, "cases": [case._asdict() for case in sizes.cases]},
        rows,
        {"Times": report.table(list(rows[0]), cells)},
        bars,
        [],
    ).write(options, draw(rows))
    print(page.read_text("utf-8"))


if __name__ == "__main__":
    main()
