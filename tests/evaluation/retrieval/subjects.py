"""What the lint of retrieval looks at, with nothing wrong in it."""

import torch

from vmm.evaluation.common.features import Clip
from vmm.evaluation.retrieval.lint import lint
from vmm.evaluation.retrieval.protocols import PROTOCOLS
from vmm.evaluation.retrieval.subject import Subject

N = 1000
MSRVTT = PROTOCOLS["msrvtt-1ka"]


def clips_of(ids, captions=1):
    return [
        Clip(name, [f"caption {number} {i} of {name}" for i in range(captions)], None, None)
        for number, name in enumerate(ids)
    ]


def scores_of(clips, noise=1.0, seed=0):
    """Cosine-like scores of a fair model: right pairs a little higher."""
    owner = torch.tensor([n for n, clip in enumerate(clips) for _ in clip.captions])
    generator = torch.Generator().manual_seed(seed)
    scores = noise * torch.randn(len(owner), len(clips), generator=generator)
    scores[torch.arange(len(owner)), owner] += 3
    return scores / 20


def changed(subject, **fields):
    return Subject(
        **({name: getattr(subject, name) for name in subject.__dataclass_fields__} | fields)
    )


def only(subject, code):
    findings = lint(subject)
    assert [finding.code for finding in findings] == [code], findings
    return findings[0]
