"""Annotations to a training, a validation and a test part, none of which has a video of another's.

What belongs to one video stays together: its captions, its cuts (``start`` and ``end``), files of
equal content under several names, scenes that PySceneDetect cut (``film-Scene-001.mp4``), and, on
request, what a column says is of one source. Classes
are spread over the parts in proportion. The same annotations, shares and seed give the same parts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vmm.data.annotations.media import MediaError, MediaFolder
from vmm.data.annotations.record import Annotation
from vmm.data.schema import Media
from vmm.text_output import number_of
from vmm.whole import whole_file

PARTS = ("train", "validation", "test")
SPLITS_FILE = "splits.json"

_SHARES = re.compile(r"\d+(?:\.\d+)?(?:/\d+(?:\.\d+)?)+")
_SCENE = re.compile(r"(.+?)[\s_-]*scene[\s_-]*\d+.*", re.IGNORECASE)
_FEW = 20
"""Clips of a part in which one more or less is five points of a result."""


class Video(NamedTuple):
    """What must stay in one part."""

    name: str
    items: list[Annotation]
    clips: int
    """Samples that it will be."""
    kind: str
    """Its class, "" if it has none."""


class Split(NamedTuple):
    """The parts, and what they hold."""

    parts: dict[str, list[Video]]
    """Those of ``PARTS`` that have a share, in this order."""
    seed: int
    group_by: str | None = None
    """The column that says what is of one source."""

    def items(self, part: str) -> list[Annotation]:
        """Give the annotations of a part, in the order of its videos."""
        return [item for video in self.parts[part] for item in video.items]

    def in_words(self) -> str:
        """Say how large the parts are, and what of them is odd; several lines."""
        lines = []
        for part, videos in self.parts.items():
            lines.append(f"{part}: {_size(videos, self.group_by)}, {_texts(self.items(part))}")
        kinds = {part: {v.kind for v in videos} for part, videos in self.parts.items()}
        everywhere = set().union(*kinds.values())
        for part, there in kinds.items():
            if missing := sorted(everywhere - there):
                classes = number_of(len(missing), "class", "classes")
                lines.append(f"{part} has none of {classes}: {_some(missing)}")
        items = [item for part in self.parts for item in self.items(part)]
        if own := sorted({str(i.metadata["split"]) for i in items if "split" in i.metadata}):
            lines.append(
                f"the file's own splits ({_some(own)}) are not kept; --split {own[0]} makes one"
            )
        joined = [v for videos in self.parts.values() for v in videos if v.clips > 1]
        if joined:
            largest = max(joined, key=lambda video: video.clips)
            whose = largest.name if self.group_by is None else f"that of {largest.name}"
            lines.append(
                f"{number_of(len(joined), *_kind(self.group_by))} with several clips, which stay "
                f"together: {whose} has {largest.clips}"
            )
        small = [p for p in self.parts if p != "train" and _clips(self.parts[p]) < _FEW]
        for part in small:
            clips = _clips(self.parts[part])
            lines.append(
                f"{part} has {number_of(clips, 'clip')}: one is {100 / clips:.0f} points of "
                "a result, so small differences say nothing; give it a larger share, or add clips"
            )
        return "\n".join(lines)


def is_shares(split: str | None) -> bool:
    """Tell ``80/10/10`` from the names of a file's own splits."""
    return split is not None and _SHARES.fullmatch(split) is not None


def parse_shares(text: str) -> dict[str, float]:
    """Read ``80/10/10``: percent of the clips for each of ``PARTS``.

    Raises:
        ValueError: If they are not three, do not sum to 100, or leave nothing to train on.
    """
    shares = [float(share) for share in text.split("/")]
    if len(shares) != len(PARTS):
        raise ValueError(
            f"--split {text} has {len(shares)} parts; give three, training/validation/test, e.g. "
            "80/10/10 (80/20/0 makes no test part)"
        )
    if abs(sum(shares) - 100) > 1e-6:
        raise ValueError(f"--split {text} sums to {sum(shares):g}; percentages sum to 100")
    if shares[0] == 0:
        raise ValueError(f"--split {text} leaves nothing to train on; give e.g. 80/10/10")
    return dict(zip(PARTS, shares, strict=True))


def split_by_video(
    annotations: Sequence[Annotation],
    media: Path,
    shares: Mapping[str, float],
    seed: int = 0,
    group_by: str | None = None,
) -> Split:
    """Deal videos to parts.

    Args:
        annotations: All items.
        media: The folder that holds the files; what is not found there counts by its name.
        shares: Percent of the clips by part, see ``parse_shares``.
        seed: Of the order in which videos are dealt.
        group_by: Column of the annotations; items in which it says the same stay together.

    Raises:
        ValueError: If there are fewer videos than parts, or no such column.
    """
    videos = _videos(annotations, media, group_by)
    wanted = {part: share for part, share in shares.items() if share > 0}
    if len(videos) < len(wanted):
        one, several = _kind(group_by)
        raise ValueError(
            f"{_size(videos, group_by)} are too few for the {len(wanted)} parts "
            f"{', '.join(wanted)}: no {one} may be in two of them; add {several}, or leave a part "
            "out, e.g. --split 50/50/0"
        )
    ordered = _order(videos, seed)
    parts: dict[str, list[Video]] = {part: [] for part in wanted}
    sizes = dict.fromkeys(wanted, 0)
    seen, total = set(), 0
    for video in ordered:
        total += video.clips
        short = {part: wanted[part] / 100 * total - sizes[part] for part in wanted}
        # A class that is never trained cannot be recognised.
        part = (
            max(short, key=lambda name: short[name]) if video.kind in seen else next(iter(wanted))
        )
        seen.add(video.kind)
        parts[part].append(video)
        sizes[part] += video.clips
    _fill(parts)
    return Split(parts, seed, group_by)


def write_split(split: Split, out: Path) -> None:
    """Write down which video is in which part, beside the folders of the parts."""
    names = {part: [video.name for video in videos] for part, videos in split.parts.items()}
    with whole_file(out / SPLITS_FILE) as file:
        file.write_text(json.dumps({"seed": split.seed, "videos": names}, indent=1) + "\n")


def _videos(annotations: Sequence[Annotation], media: Path, group_by: str | None) -> list[Video]:
    """Put together what is of one video, in the order of first appearance."""
    names = {(item.kind, item.media): item.aliases for item in annotations}
    contents = _same_content(names, media)
    group = _Groups()
    for item in annotations:
        group.join(("file", item.kind, item.media), ("content", contents[item.kind, item.media]))
        if scene := _SCENE.fullmatch(item.media):
            group.join(("file", item.kind, item.media), ("film", scene[1]))
        if group_by is not None:
            if group_by not in item.metadata:
                there = sorted({name for one in annotations for name in one.metadata})
                raise ValueError(
                    f"--group-by {group_by}: {item.media!r} has no such column; there are "
                    f"{', '.join(there) or 'none'} besides file and caption"
                )
            source = str(item.metadata[group_by])
            group.join(("file", item.kind, item.media), ("source", source))
    found: dict[object, list[Annotation]] = defaultdict(list)
    for item in annotations:
        found[group.of(("file", item.kind, item.media))].append(item)
    return [_video(items) for items in found.values()]


def _video(items: list[Annotation]) -> Video:
    clips = len({(item.kind, item.media, item.start, item.end) for item in items})
    named = (item.metadata.get("class", item.metadata.get("label")) for item in items)
    kinds = Counter(str(kind) for kind in named if kind is not None)
    kind = kinds.most_common(1)[0][0] if kinds else ""
    return Video(items[0].media, items, clips, kind)


def _same_content(
    names: Mapping[tuple[Media, str], tuple[str, ...]], media: Path
) -> dict[tuple[Media, str], str]:
    """Give what tells the content of each file, or its name where there is none."""
    folders = {kind: MediaFolder(media, kind) for kind in sorted({kind for kind, _ in names})}
    files: dict[tuple[Media, str], Path] = {}
    for (kind, name), aliases in names.items():
        try:
            files[kind, name] = folders[kind].find(name, *aliases)
        except MediaError:
            continue
    sizes = Counter(path.stat().st_size for path in set(files.values()))
    told = {}
    for key in names:
        path = files.get(key)
        if path is None:
            told[key] = f"name {key[1]}"
        elif sizes[path.stat().st_size] == 1:
            told[key] = f"file {path}"
        else:
            with path.open("rb") as file:
                told[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return told


class _Groups:
    """Sets of things that are joined step by step."""

    def __init__(self) -> None:
        self._above: dict[object, object] = {}

    def of(self, thing: object) -> object:
        """Give what stands for the set that a thing is in."""
        above = self._above.setdefault(thing, thing)
        while above != self._above[above]:
            above = self._above[above]
        self._above[thing] = above
        return above

    def join(self, one: object, other: object) -> None:
        """Make one set of two."""
        self._above[self.of(other)] = self.of(one)


def _order(videos: Sequence[Video], seed: int) -> list[Video]:
    """Put videos of a class side by side, large ones first, else as the seed says.

    Dealt in this order by what a part still lacks, every class goes to the parts in proportion,
    and small videos make up for what large ones upset.
    """

    def draw(text: str) -> bytes:
        return hashlib.blake2b(f"{seed} {text}".encode(errors="replace"), digest_size=8).digest()

    return sorted(videos, key=lambda v: (draw(v.kind), v.kind, -v.clips, draw(v.name), v.name))


def _fill(parts: dict[str, list[Video]]) -> None:
    """Give each part that has nothing the smallest video of the largest part."""
    for part, videos in parts.items():
        if not videos:
            rich = max((p for p in parts if len(parts[p]) > 1), key=lambda p: _clips(parts[p]))
            video = min(reversed(parts[rich]), key=lambda one: one.clips)
            parts[rich].remove(video)
            parts[part].append(video)


def _clips(videos: Iterable[Video]) -> int:
    return sum(video.clips for video in videos)


def _kind(group_by: str | None) -> tuple[str, str]:
    """Name what stays together, one and several: videos, or what a column puts together."""
    return ("video", "videos") if group_by is None else (f"{group_by} group", f"{group_by} groups")


def _size(videos: Sequence[Video], group_by: str | None) -> str:
    """Say how many clips there are, and of how many of what stays together."""
    return f"{number_of(_clips(videos), 'clip')} of {number_of(len(videos), *_kind(group_by))}"


def _texts(items: Sequence[Annotation]) -> str:
    """Count the captions, or the classes where these are all the captions there are."""
    texts = [text for item in items for text in item.captions]
    if items and texts == [item.metadata.get("class") for item in items]:
        return number_of(len(set(texts)), "class", "classes")
    return number_of(len(texts), "caption")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")
