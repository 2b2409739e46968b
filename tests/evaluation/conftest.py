"""A toy world where the right answers are known.

A toy clip shows one of many items, brighter or darker from frame to frame; its caption names the
item and the direction. The toy model reads both off the pixels, unless it is told to ignore the
order of frames or the text.
"""

import importlib
import math
from typing import ClassVar

import pytest
import torch

from vmm.data.shards import EvaluationSample
from vmm.data.transforms import ClipSettings
from vmm.evaluation.common import command
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


class ColourEncoder:
    """A model of one's own: a clip is its mean colour, a text the colours that it names."""

    name = "colours"
    clip = ClipSettings(2, 16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def identity(self):
        return {"encoder": "mine", "parameters": 3, "checkpoint": "none", "sha256": "00" * 32}

    def encode_videos(self, video):
        return ClipVectors(video.mean((1, 3, 4))[:, None])

    def encode_texts(self, captions):
        named = [[name in text for name in ("red", "green", "blue")] for text in captions]
        return CaptionVectors(torch.tensor(named).float())


class Toys:
    """What tests need of the toy world."""

    NUM_ITEMS, NUM_FRAMES = NUM_ITEMS, NUM_FRAMES
    Encoder, WaywardEncoder = ToyEncoder, WaywardEncoder
    Colours = ColourEncoder

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


@pytest.fixture
def told(monkeypatch):
    """Call a command, and give the options that its evaluation is called with; nothing is there."""
    monkeypatch.setattr(command, "refuse_absent", lambda given: None)

    def told(name, *arguments):
        seen = []
        run = importlib.import_module(f"vmm.evaluation.{name}.run")
        monkeypatch.setattr(run, "evaluate", lambda options, _: seen.append(options))
        words = [*map(str, arguments), "--device", "cpu"]
        assert importlib.import_module(f"vmm.evaluation.{name}.command").main(words) == 0
        return seen[0]

    return told
