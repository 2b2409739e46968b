"""Mistakes in splits and captions. Each check yields what it finds, nothing on a clean test set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from statistics import mean, median

import torch
from torch import Tensor

from vmm.data.annotations.media import stem
from vmm.data.annotations.registry import DATASETS
from vmm.evaluation.common.findings import Finding
from vmm.evaluation.retrieval.subject import Subject
from vmm.metrics import TiedRanks, text_to_video_ranks
from vmm.text_output import number_of
from vmm.wording import clean_caption

# Annotators write about ten words a sentence; joined captions of a video are far longer.
_PARAGRAPH_WORDS = 40


def repeated_ids(subject: Subject) -> Iterator[Finding]:
    """An id that stands twice in the gallery."""
    repeated = [key for key, n in Counter(clip.key for clip in subject.clips).items() if n > 1]
    if repeated:
        yield Finding(
            "repeated-id",
            f"{len(repeated)} ids are in the gallery more than once, the first is {repeated[0]!r}",
            "every copy but one is a wrong answer with the right score: R@1 at most a half there",
        )


def few_candidates(subject: Subject) -> Iterator[Finding]:
    """A gallery without a wrong answer."""
    if len(subject.clips) < 2:
        yield Finding(
            "few-candidates",
            f"the gallery has {len(subject.clips)} clip",
            "whatever the model does, R@1 is 100: there is nothing to confuse the clip with",
        )


def split(subject: Subject) -> Iterator[Finding]:
    """Another test set, or another part of it, than it is called."""
    protocol, count = subject.protocol, len(subject.clips)
    if protocol is None:
        return
    names = [stem(clip.key) for clip in subject.clips]
    strange = [name for name in names if not re.fullmatch(protocol.id_form or ".*", name)]
    if strange:
        yield Finding(
            "foreign-ids",
            f"{len(strange)} of {count} ids are not of {protocol.title}, e.g. {strange[0]!r}",
            "the number is of another data set",
        )
    if protocol.videos is None or count == protocol.videos:
        return
    sizes = DATASETS[protocol.dataset].sizes
    others = [split for split, size in sizes.items() if size == count]
    if others:
        yield Finding(
            "other-split",
            f"{number_of(count, 'video is', 'videos are')}"
            f" {' or '.join(others)}; {protocol.title} has {protocol.videos}",
            _size_effect(subject, protocol.videos),
        )
    else:
        word = "fewer" if count < protocol.videos else "more"
        yield Finding(
            f"{word}-videos",
            f"{number_of(count, 'video is', 'videos are')}"
            f" listed, {protocol.title} has {protocol.videos}",
            _size_effect(subject, protocol.videos),
        )


def _size_effect(subject: Subject, size: int) -> str:
    """Say what a gallery of another size does."""
    count = len(subject.clips)
    now, scores = subject.recall(), subject.scores
    if count < size:
        return f"easier: chance is {100 / count:.2f} instead of {100 / size:.2f}"
    if now is None or scores is None:
        return f"harder: chance is {100 / count:.2f} instead of {100 / size:.2f}"
    ranks = text_to_video_ranks(scores, subject.relevant)
    expected = 100 * _first_among(ranks, size).mean().item()
    return f"R@1 {now:.1f} among {count}, {expected:.1f} expected among {size} drawn of them"


def _first_among(ranks: TiedRanks, size: int) -> Tensor:
    """Probability to be first when the gallery is a random one of ``size``, target included."""
    others = ranks.candidates - 1
    better = ranks.better.double()
    # None of the (size - 1) that are drawn from the others may be better.
    log = torch.lgamma
    free = others - better
    drawn = float(size - 1)
    ways = log(free + 1) - log((free - drawn).clamp(min=0) + 1)
    total = log(torch.tensor(others + 1.0)) - log(torch.tensor(others - drawn + 1.0))
    return torch.where(free >= drawn, (ways - total).exp(), 0.0) * (ranks.targets > 0)


def training_videos(subject: Subject) -> Iterator[Finding]:
    """Videos that the model was trained on."""
    told = subject.protocol.training_id if subject.protocol else None
    names = [stem(clip.key) for clip in subject.clips]
    seen = torch.tensor([n in subject.training or bool(told and told(n)) for n in names])
    if not len(seen) or not seen.any():
        return
    first = names[int(seen.byte().argmax())]
    effect = "the model has seen the answers: R@1 is too high"
    known, new = subject.recall(seen), subject.recall(~seen)
    if known is not None and new is not None:
        effect = f"R@1 {subject.recall():.1f}; {known:.1f} among those seen, {new:.1f} among others"
    yield Finding(
        "training-videos",
        f"{int(seen.sum())} of {len(names)} videos are in the training set, e.g. {first!r}",
        effect,
    )


def captions(subject: Subject) -> Iterator[Finding]:
    """Captions joined, or not joined, or of another number than published."""
    protocol = subject.protocol
    counts = [len(clip.captions) for clip in subject.clips]
    if protocol is None or not counts or protocol.captions is None:
        return
    low, high = protocol.captions
    usual = f"{protocol.title} has {low}" + (f" to {high}" if low < high else "") + " per video"
    words = median(len(c.split()) for clip in subject.clips for c in clip.captions or [""])
    strange = [count for count in counts if not low <= count <= high]
    if low > 1 and max(counts) == 1 and words > _PARAGRAPH_WORDS:
        yield Finding(
            "joined-captions",
            f"every video has one text of about {words:.0f} words; {usual}, each a query",
            "a paragraph says more than a sentence: R@1 of both directions is far too high",
        )
    elif protocol.paragraph and max(counts) > 1:
        yield Finding(
            "captions-not-joined",
            f"videos have {mean(counts):.1f} captions; {protocol.title} joins them to one",
            "a sentence says less than the paragraph: text-to-video R@1 is too low",
        )
    elif strange:
        yield Finding(
            "caption-count",
            f"{number_of(len(strange), 'video has', 'videos have')}"
            f" {min(strange)} to {max(strange)} captions; {usual}",
            "video-to-text is easier with more captions, as the best of them counts",
        )


def same_stem(subject: Subject) -> Iterator[Finding]:
    """A video under two names, as DiDeMo lists 33 of them."""
    if len({clip.key for clip in subject.clips}) < len(subject.clips):
        return  # said already
    columns: dict[str, list[int]] = {}
    for column, clip in enumerate(subject.clips):
        columns.setdefault(_without_extension(clip.key), []).append(column)
    twins = [same for same in columns.values() if len(same) > 1]
    if not twins:
        return
    relevant = subject.relevant.clone()
    for same in twins:
        relevant[:, same] = relevant[:, same].any(1, keepdim=True)
    names = [subject.clips[column].key for column in twins[0]]
    yield Finding(
        "same-video-twice",
        f"{number_of(len(twins), 'video is', 'videos are')}"
        f" listed under several names, e.g. {' and '.join(names)}",
        _both(
            subject.recall(), subject.recall(relevant=relevant), "if either name counts",
            "each copy is a wrong answer with the right score: R@1 is too low",
        ),
    )  # fmt: skip


def duplicate_captions(subject: Subject) -> Iterator[Finding]:
    """The same words about different videos."""
    if subject.protocol is not None and subject.protocol.shared_captions:
        return
    relevant = subject.relevant.clone()
    texts = [clean_caption(caption) for clip in subject.clips for caption in clip.captions]
    rows: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        rows.setdefault(text, []).append(row)
    same = [found for found in rows.values() if int(relevant[found].any(0).sum()) > 1]
    if not same:
        return
    number = sum(map(len, same))
    for found in same:
        relevant[found] = relevant[found].any(0)
    yield Finding(
        "duplicate-captions",
        f"{number} of {len(texts)} captions are said of several videos, e.g. {texts[same[0][0]]!r}",
        _both(
            subject.recall(), subject.recall(relevant=relevant), "if any of their videos counts",
            "only one of several right videos counts: R@1 is too low",
        ),
    )  # fmt: skip


def unreadable(subject: Subject) -> Iterator[Finding]:
    """Videos that are missing or cannot be read."""
    bad = [clip for clip in subject.clips if clip.problem is not None]
    if not bad:
        return
    reasons = Counter(str(clip.problem) for clip in bad)
    keep = torch.tensor([clip.problem is None for clip in subject.clips])
    yield Finding(
        "unreadable-videos",
        f"{len(bad)} of {len(subject.clips)} videos could not be used "
        f"({', '.join(f'{n} {reason}' for reason, n in reasons.most_common())})",
        _both(
            subject.recall(), subject.recall(keep), "if they are left out",
            "their queries are misses, or the gallery is smaller than the published one",
        ),
    )  # fmt: skip


def lost_samples(subject: Subject) -> Iterator[Finding]:
    """Shards or parts of shards that cannot be used, so that nobody knows what was in them."""
    if subject.lost:
        yield Finding(
            "incomplete-shards",
            f"left out: {', '.join(f'{n} {reason}' for reason, n in subject.lost.items())}",
            "the gallery is smaller than the data set: R@1 is too high",
        )


def _without_extension(key: str) -> str:
    return f"{key.rpartition('/')[0]}/{stem(key)}"


def _both(now: float | None, otherwise: float | None, when: str, unscored: str) -> str:
    if now is None or otherwise is None:
        return unscored
    return f"R@1 {now:.1f}; {otherwise:.1f} {when}"
