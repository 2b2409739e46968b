"""A toy world of videos whose seconds are red, green, blue or white.

The toy model sees the colour of each frame; a text names one.
"""

import json

import pytest
import torch

from tests.evaluation.films import COLOURS, NAMES, mp4
from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.models import CaptionVectors, ClipVectors
from vmm.evaluation.grounding.protocols import MomentQuery

FILMS = (
    ("red", "green", "green", "blue", "white"),
    ("blue", "blue", "blue", "red", "white", "white"),
    ("white", "red", "red", "red", "green", "red"),
    ("green", "blue", "white", "white", "white", "white"),
)


class ToyEncoder:
    """Gives each frame the vector of its colour, or the whole clip one vector."""

    name = "toy"
    clip = ClipSettings(4, 8)

    def __init__(self, apart=True, broken=False):
        self.apart, self.broken, self.calls = apart, broken, 0

    def identity(self):
        return {"encoder": "toy", "parameters": 1, "checkpoint": "none", "sha256": "00" * 32}

    def encode_videos(self, video):
        self.calls += 1
        mean, std = torch.tensor(self.clip.mean), torch.tensor(self.clip.std)
        pixels = video.mean((3, 4)) * std + mean  # (B, T, 3)
        colours = torch.tensor([COLOURS[name] for name in NAMES]) / 255
        which = (pixels[:, :, None] - colours).square().sum(-1).argmin(-1)
        seen = torch.nn.functional.one_hot(which, len(NAMES)).float()
        if self.broken:
            seen = seen * torch.nan
        return ClipVectors(seen if self.apart else seen.mean(1, keepdim=True))

    def encode_texts(self, captions):
        words = [caption.split() for caption in captions]
        rows = [[float(name in said) for name in NAMES] for said in words]
        return CaptionVectors(torch.tensor(rows) + 1e-3)


def moments_of(film, colour):
    """The parts of a film, in seconds, that show a colour."""
    found = []
    for second, shown in enumerate(film):
        if shown != colour:
            continue
        if found and found[-1][1] == second:
            found[-1][1] = second + 1
        else:
            found.append([second, second + 1])
    return found


class Toys:
    NAMES = NAMES
    Encoder = ToyEncoder

    def query(self, key="q", video=0, moments=((1, 3),), text="green", duration=6.0, **more):
        return MomentQuery(key, video, text, [list(m) for m in moments], duration, **more)

    def records(self, split="test", films=FILMS):
        return [
            {
                "qid": f"{split}{number}_{colour}",
                "video": f"{split} é{number}.mp4",
                "query": f"something {colour}",
                "duration": len(film),
                "relevant_windows": moments_of(film, colour),
                "relevant_clip_ids": [0],
                "saliency_scores": [[4 if colour in film[:2] else 0]],
            }
            for number, film in enumerate(films)
            for colour in dict.fromkeys(film)
        ]

    def write(self, folder, split="test", films=FILMS, records=None):
        """Write films and what they show, and give the latter's path."""
        media = folder / f"{split} videos"
        media.mkdir(parents=True)
        for number, film in enumerate(films):
            (media / f"{split} é{number}.mp4").write_bytes(mp4(film))
        path = folder / f"{split}-moments.jsonl"
        records = self.records(split, films) if records is None else records
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path


@pytest.fixture
def toys():
    return Toys()
