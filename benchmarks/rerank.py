"""Re-ranking: the matching head's keys and values of a video, computed per pair or per video.

``python -m benchmarks.rerank [--short]``. At the sizes of VideoMamba-M and BERT-base with random
weights; the video encoder itself is not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks import common, report
from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.models import VmmEncoder
from vmm.models.bert import BertArchitecture
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba
from vmm.ops.tuning.cpu_setup import tune_cpu

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PER_PAIR, PER_VIDEO = "per pair", "vmm, per video"
K, VIDEOS = 128, 1000
WIDTH, PATCHES = 576, 196  # of VideoMamba-M, per frame of 224 pixels
AT_ONCE = 8  # pairs; the keys and values of more do not fit into a laptop's memory

TEXT = f"""One video and the captions that look at it: {VIDEOS} x {VIDEOS} at k={K} is {VIDEOS}
such videos with {K} captions each, in each direction. `{PER_PAIR}` projects the video's tokens for
every pair, {AT_ONCE} pairs at once; `{PER_VIDEO}` is what vmm eval retrieval does. Seconds are the
fastest of several runs, all in turns; memory is what the call needs beyond what is there and what
it returns."""


class Sizes(NamedTuple):
    """How much is measured.

    Args:
        frames: Frames of the video.
        captions: Captions that look at it.
        text: Sizes of the text encoder.
        fusion_layer: Its first layer that looks at the video.
        rounds: See ``common.Race``.
        limit_s: See ``common.Race``.
    """

    frames: tuple[int, ...]
    captions: tuple[int, ...]
    text: BertArchitecture
    fusion_layer: int
    rounds: int
    limit_s: float


SHORT = Sizes((8,), (32,), BertArchitecture(), 9, 2, 8.0)
LONG = Sizes((8,), (8, 32, K), BertArchitecture(), 9, 3, 30.0)


def build_encoder(sizes: Sizes) -> VmmEncoder:
    """Build a model whose matching head has the sizes asked for; its video encoder is a stub."""
    torch.manual_seed(0)
    text = BertTextEncoder(
        WIDTH, "random", sizes.fusion_layer, pretrained=False, architecture=sizes.text
    )
    video = VideoMamba(embed_dim=WIDTH, depth=1)
    model = VideoTextModel(video, text).eval().to(common.device())
    return VmmEncoder(model, ClipSettings(8, 224), {})


@torch.inference_mode()
def per_video(encoder: VmmEncoder, states: list[Tensor], tokens: Tensor) -> list[Tensor]:
    """Score all captions with the video; its keys and values are computed once."""
    return [encoder.match(states, tokens)]


@torch.inference_mode()
def per_pair(encoder: VmmEncoder, states: list[Tensor], tokens: Tensor) -> list[Tensor]:
    """Score all captions with the video; its keys and values are computed for each."""
    device = common.device()
    scores = []
    for start in range(0, len(states), AT_ONCE):
        part = states[start : start + AT_ONCE]
        padded = pad_sequence(part, batch_first=True).to(device)
        lengths = torch.tensor([len(state) for state in part])
        mask = torch.arange(padded.shape[1]) < lengths[:, None]
        video = tokens.to(device).repeat(len(part), 1, 1)
        fused = encoder.model.fuse(padded, mask.to(device), video)
        scores.append(encoder.model.match_logits(fused)[:, 1].float().cpu())
    return [torch.cat(scores)]


def _keep(scores: dict[str, list[Tensor]], name: str, call: Callable[[], list[Tensor]]) -> None:
    scores[name] = call()


def measure(sizes: Sizes) -> list[dict[str, Any]]:
    """Time both ways for every length of the video and number of captions."""
    encoder = build_encoder(sizes)
    race = common.Race(sizes.rounds, sizes.limit_s)
    cases = [(frames, number) for frames in sizes.frames for number in sizes.captions]
    rows = []
    for frames, number in report.progress(cases, "rerank"):
        tokens = torch.randn(frames * PATCHES, WIDTH)
        lengths = torch.randint(8, 21, (number,)).sort().values.tolist()  # word pieces
        states = [torch.randn(length, sizes.text.hidden_size) for length in lengths]
        calls: dict[str, Callable[[], list[Tensor]]] = {
            PER_PAIR: partial(per_pair, encoder, states, tokens),
            PER_VIDEO: partial(per_video, encoder, states, tokens),
        }
        scores: dict[str, list[Tensor]] = {}  # of the last run of each
        timed = {name: partial(_keep, scores, name, call) for name, call in calls.items()}
        times = race.run(frames * number, timed)
        error = common.error(scores[PER_VIDEO][0], scores[PER_PAIR][0].double())
        for name, timing in times.items():
            row = {"frames": frames, "captions": number, "variant": name}
            row |= {"s": timing.fastest, "ms_per_pair": 1e3 * timing.fastest / number}
            memory = common.extra_memory(calls[name])
            row |= {} if memory is None else {"extra_mib": memory / 2**20}
            rows.append(row | ({"error": error} if name == PER_VIDEO else {}))
    return rows


def _find(rows: list[dict[str, Any]], frames: int, captions: int) -> dict[str, dict[str, Any]]:
    chosen = (row for row in rows if (row["frames"], row["captions"]) == (frames, captions))
    return {row["variant"]: row for row in chosen}


def bars(rows: list[dict[str, Any]]) -> list[report.Bar]:
    """Return the promises, and what became of them."""
    found = []
    for frames in sorted({row["frames"] for row in rows}):
        case = _find(rows, frames, max(row["captions"] for row in rows))
        if PER_PAIR in case:
            gain = case[PER_PAIR]["s"] / case[PER_VIDEO]["s"]
            name = f"{PER_PAIR} : {PER_VIDEO}, {case[PER_VIDEO]['captions']} captions"
            found.append(report.Bar(f"{name}, {frames} frames", 5.0, gain))
    largest = max(row["error"] for row in rows if "error" in row)
    found.append(report.Bar("largest relative difference of a score", 1e-5, largest, at_most=True))
    return found


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw time per pair and memory against the captions that look at a video."""
    figure, axes = report.new_figure(2)
    names = list(dict.fromkeys((row["variant"], row["frames"]) for row in rows))
    panels = {"ms_per_pair": "milliseconds per pair", "extra_mib": "extra memory, MiB"}
    for axis, (value, label) in zip(axes[0], panels.items(), strict=True):
        lines = {
            f"{variant}, {frames} frames": [
                (row["captions"], row[value])
                for row in rows
                if (row["variant"], row["frames"]) == (variant, frames) and value in row
            ]
            for variant, frames in names
        }
        title = label.partition(",")[0]
        report.draw_lines(
            axis, lines, title=title, xlabel="captions that look at a video", ylabel=label
        )
    return figure


def main() -> None:
    """Measure, and write the three files."""
    options = report.options("benchmarks.rerank", __doc__, "one video, one number of captions")
    sizes = SHORT if options.short else LONG
    settings = sizes._asdict() | {"text": vars(sizes.text)} | tune_cpu()
    rows = measure(sizes)
    columns = ["frames", "captions", "variant", "s", "ms_per_pair", "extra_mib", "error"]

    def cell(value: Any) -> str:
        return report.number(value) if isinstance(value, float | None) else str(value)

    tables = {
        "Times and memory": report.table(
            columns, [[cell(row.get(key)) for key in columns] for row in rows]
        )
    }
    title = f"Re-ranking on {common.place()}"
    result = report.Report("rerank", title, TEXT, settings, rows, tables, bars(rows), [])
    print(result.write(options, draw(rows)).read_text("utf-8"))


if __name__ == "__main__":
    main()
