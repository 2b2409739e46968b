"""A toy world of videos whose pixels say which of four colours comes first.

A toy video is a row of plain frames. The toy model reads the colour of the first frame and of all
frames; a text names a colour, and "first" or "somewhere".
"""

import json

import pytest
import torch

from tests.evaluation.films import COLOURS, NAMES, mp4
from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.models import CaptionVectors, ClipVectors
from vmm.evaluation.long_video_qa.measure import OptionScores
from vmm.evaluation.long_video_qa.options import Options
from vmm.evaluation.long_video_qa.protocols import ChoiceQuestion
from vmm.evaluation.long_video_qa.run import evaluate


class ToyEncoder:
    """Sees which colour is where; tokens are the frames' colours, in order."""

    name = "toy"
    temperature = 0.1
    clip = ClipSettings(4, 8)

    def __init__(self, broken=False):
        self.broken = broken
        self.calls = 0

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
        return ClipVectors(seen, seen)

    def encode_texts(self, captions):
        rows = torch.stack([
            torch.tensor([float(name in caption.split()) for name in NAMES]) for caption in captions
        ])  # fmt: skip
        first = torch.tensor([[float("first" in caption.split())] for caption in captions])
        states = torch.cat([rows, first], 1)[:, None]
        return CaptionVectors(rows + 1e-3, list(states))

    def match_logits(self, states, tokens):
        """The matching head knows the first frame; the cosine only how many there are."""
        rows = torch.stack(list(states))[:, 0, :4] @ tokens[0]
        return torch.stack([torch.zeros_like(rows), 8 * rows - 4], 1)


class Toys:
    NAMES = NAMES
    Encoder = ToyEncoder
    mp4 = staticmethod(mp4)

    def question(self, number, answer, video=None, options=NAMES, kind="what", duration=4.0):
        return ChoiceQuestion(
            key=f"q{number}",
            video=number if video is None else video,
            text="what comes first ?",
            options=list(options),
            answer=answer,
            kind=kind,
            duration=duration,
            prompts=[f"{option} comes first" for option in options],
        )

    def scores(self, video, blank=None, shuffled=None, blind=None, method="similarity"):
        views = {} if video is None else {
            "video": {method: video},
            "blank": {method: blank or [0.0] * len(video)},
            "shuffled": {method: shuffled or [0.0] * len(video)},
        }  # fmt: skip
        width = len(video or blind or [])
        return OptionScores(views, blind or [0.0] * width, [[0.0]] * width)

    def twelve(self, right, **others):
        """Twelve questions about six videos; the first ``right`` are answered right."""
        questions = [self.question(i, i % 4, i // 2, kind="ab"[i % 2]) for i in range(12)]
        rows = [
            [float(option == (i if i < right else i + 1) % 4) for option in range(4)]
            for i in range(12)
        ]
        return questions, [self.scores(row, **others) for row in rows]

    def write(self, folder, videos=12):
        """Videos of three colours, each asked which colour comes first; every colour as often."""
        (folder / "videos").mkdir(parents=True)
        records = []
        for number in range(videos):
            first = NAMES[number % 4]
            others = [name for name in NAMES if name != first]
            colours = [first, first, others[number % 3], others[(number + 1) % 3]]
            (folder / "videos" / f"é {number}.mp4").write_bytes(mp4(colours))
            records.append(
                {
                    "question_id": f"ü{number}",
                    "video": f"é {number}.mp4",
                    "question": "what comes first ?",
                    "options": NAMES,
                    "statements": [f"{name} comes first" for name in NAMES],
                    "answer": number % 4,
                    "question_type": "order",
                }
            )
        path = folder / "my-questions.json"
        path.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
        return path


@pytest.fixture
def toys():
    return Toys()


@pytest.fixture
def result(toys, tmp_path):
    """Of an encoder of one's own, called from Python; in ``out``."""
    return evaluate(
        Options(
            model=toys.Encoder(),
            dataset="questions",
            annotations=toys.write(tmp_path),
            media=str(tmp_path / "videos"),
            out=tmp_path / "out",
        )
    )
