"""A toy world where the right answers are known.

A toy clip shows one of many items, brighter or darker from frame to frame; its caption names the
item and the direction. The toy model reads both off the pixels, unless it is told to ignore the
order of frames or the text.
"""

import json
import math
from typing import ClassVar

import pytest
import torch

from vmm.data.shards import EvaluationSample
from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.encoding import feature_store
from vmm.evaluation.common.models import CaptionVectors, ClipVectors
from vmm.evaluation.retrieval.measure import measure_clips
from vmm.evaluation.retrieval.options import Options
from vmm.evaluation.retrieval.scoring import matcher_of

NUM_ITEMS, NUM_FRAMES = 6, 4
SLOPE = 0.3  # small beside the distance of two items


def caption(item, direction):
    return f"{item} {'up' if direction > 0 else 'down'}"


def toy_video(item, direction):
    angle = 2 * math.pi * item / NUM_ITEMS
    video = torch.empty(NUM_FRAMES, 3, 2, 2)
    video[:, 0], video[:, 1] = math.cos(angle), math.sin(angle)
    video[:, 2] = direction * torch.linspace(0, SLOPE, NUM_FRAMES)[:, None, None]
    return video


class ToyWorld(list):
    """A data set of samples."""

    frame_order = "forward"
    lost: ClassVar = {}

    def fingerprint(self):
        return "toys"

    def numbered(self):
        self[:] = [sample._replace(number=number) for number, sample in enumerate(self)]
        return self


class ToyEncoder:
    name = "toy"
    clip = ClipSettings(NUM_FRAMES, 2)

    def __init__(self, sees_order=True, reads_text=True):
        self.sees_order, self.reads_text = sees_order, reads_text
        self.seen = []
        """Numbers of clips of the batches that were encoded."""
        self.matched = []
        """Tokens of the clips that captions were matched with."""

    def identity(self):
        return {"encoder": "toy", "order": self.sees_order, "text": self.reads_text}

    def encode_videos(self, video):
        self.seen.append(len(video))
        vector = video.mean((3, 4))  # (B, T, 3)
        slope = vector[:, -1, 2] - vector[:, 0, 2] if self.sees_order else 0 * vector[:, 0, 2]
        vector = torch.stack([vector[:, 0, 0], vector[:, 0, 1], slope], 1)[:, None]
        return ClipVectors(vector, vector)

    def encode_texts(self, captions):
        items = torch.tensor([int(text.split()[0]) for text in captions])
        up = torch.tensor([text.split()[1] == "up" for text in captions])
        angle = 2 * math.pi * items / NUM_ITEMS
        vector = torch.stack([angle.cos(), angle.sin(), SLOPE * (2.0 * up - 1)], 1)
        if not self.reads_text:
            vector = torch.ones_like(vector)
        return CaptionVectors(vector, list(vector[:, None]))

    def match(self, states, tokens):
        self.matched.append(tokens)
        return 10 * (torch.stack(list(states))[:, 0] * tokens[0]).sum(-1)


class WaywardEncoder(ToyEncoder):
    """Its matching head has opinions of its own, so that re-ranking changes the order."""

    def match(self, states, tokens):
        product = torch.stack(list(states))[:, 0] * tokens[0].roll(1, -1)
        return torch.sin(40 * product.sum(-1))


class Toys:
    """What tests need of the toy world."""

    NUM_ITEMS, NUM_FRAMES = NUM_ITEMS, NUM_FRAMES
    Encoder, WaywardEncoder = ToyEncoder, WaywardEncoder

    def sample(self, item, direction, problem=None, captions=None, reversed_order=False):
        video = toy_video(item, direction)
        return EvaluationSample(
            key=f"shard/{item}{direction}",
            number=-1,
            video=None if problem else (video.flip(0) if reversed_order else video),
            captions=captions or [caption(item, direction)],
            metadata={"reversed_caption": caption(item, -direction)},
            problem=problem,
        )

    def world(self, samples=None, **options):
        if samples is None:
            samples = [self.sample(i, s, **options) for i in range(NUM_ITEMS) for s in (1, -1)]
        return ToyWorld(samples).numbered()

    def store(self, folder, encoder, world, options=None):
        keep_tokens = matcher_of(encoder, options or Options()) is not None
        return feature_store(folder, encoder, world, keep_tokens)

    def evaluate(self, folder, encoder, world, **options):
        told = Options(**options)
        return measure_clips(encoder, world, told, self.store(folder, encoder, world, told))


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture
def toys():
    return Toys()


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

RANKS = {
    "better": [0, 0, 7, 0, 30, 0, 2, 0],
    "tied": [1] * 8,
    "targets": [1] * 8,
    "candidates": 256,
}


def _result_content():
    interval = {"t2v_recall_1": [77.0, 85.0], "v2t_recall_1": [77.0, 85.0]}
    queries = {"t2v": RANKS, "v2t": RANKS}
    return {
        "schema": 2,
        "name": "VideoMamba",
        "command": "python -m eval.retrieval --run runs/x",
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
            "coverage": "strict",
            "ties": "expectation over random order",
            "precision": "float32",
            "decoder": "pyav",
            "batch_size": 32,
            "device": "cpu",
        },
        "chance": METRICS | {"t2v_recall_1": 0.390625, "v2t_recall_1": 0.390625},
        "dual": METRICS,
        "reranked": METRICS | {"t2v_recall_1": 88.5},
        "interval": {"dual": interval, "reranked": interval},
        "queries": {"video": list(range(8)), "dual": queries, "reranked": queries},
        "direction": {"pairs": 256, "dual": 97.5, "match": 98.5},
        "findings": [],
        "seconds": {"encode": 1.0, "score": 2.0},
        "versions": {"torch": "2.15"},
        "examples": [],
        "best": [],
        "worst": [],
    }


@pytest.fixture
def result_content():
    """Makes the content of a result file, anew at each call."""
    return lambda: json.loads(json.dumps(_result_content()))
