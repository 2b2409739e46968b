"""Test sets: clips of shards as they are, or official annotations with a folder or shards of media.

What cannot be found or read is reported with its reason, recorded, and never replaced.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from torch.utils.data import Dataset

from vmm.data.annotations.media import MediaError, MediaFolder, stem
from vmm.data.annotations.record import Annotation
from vmm.data.clips import load_frames
from vmm.data.faults import BadSample, BadSamples, SampleError
from vmm.data.index_files import load_indexes
from vmm.data.patterns import SHARD_SUFFIX, expand_shards
from vmm.data.schema import END, START, RawSample, is_leftover, media_member
from vmm.data.shards import EvaluationClips, EvaluationSample, ShardSet
from vmm.data.transforms import ClipSettings, eval_transform
from vmm.types import Media

logger = logging.getLogger(__name__)

FrameOrder = Literal["forward", "reversed"]

_NAMED = 3
"""Missing files that a sentence names."""


class ShardClips(EvaluationClips):
    """Clips and captions of shards, and captions whose clip is not there.

    The latter come last; a download that failed makes a test set no easier.

    Args:
        shards: See ``EvaluationClips``.
        settings: See ``EvaluationClips``.
        frame_order: See ``EvaluationClips``.
        captioned: See ``EvaluationClips``.
        kind: Which media to read.

    Raises:
        ValueError: As ``EvaluationClips``.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        settings: ClipSettings,
        frame_order: FrameOrder = "forward",
        captioned: bool = True,
        kind: Media = "video",
    ) -> None:
        super().__init__(shards, settings, frame_order, kind, captioned=captioned)
        self.kind: Media = kind
        self._absent = list(self.absent())
        lost = self.skipped.copy()
        lost["no video"] -= len(self._absent)
        self.lost = dict(+lost)
        """Reason -> shards, members and samples without a query that are left out."""

    def __len__(self) -> int:
        return super().__len__() + len(self._absent)

    def __getitem__(self, index: int) -> EvaluationSample:
        place = index - super().__len__()
        if not 0 <= place < len(self._absent):
            return super().__getitem__(index)
        key, captions = self._absent[place]
        return EvaluationSample(key, index, None, captions, {}, "missing")

    def raw(self, index: int) -> RawSample:
        """Read a sample's bytes; nothing is decoded.

        Raises:
            MediaError: If its clip is not there.
            SampleError: If the shard no longer holds it.
        """
        self._refuse_absent(index)
        return super().raw(index)

    def metadata(self, index: int) -> tuple[str, dict[str, Any]]:
        """Read a sample's key and metadata.

        Raises:
            MediaError: If its clip is not there.
            SampleError: If the shard no longer holds it.
        """
        self._refuse_absent(index)
        return super().metadata(index)

    def _refuse_absent(self, index: int) -> None:
        place = index - super().__len__()
        if place >= 0:
            raise MediaError("missing", f"{self._absent[place][0]} has no clip")

    def fingerprint(self) -> str:
        """Tell states of the shards apart, by names, sizes and times."""
        return _digest("", self.shards)


def kind_in(shards: str) -> Media:
    """Tell whether shards hold videos; images only where there is not one video.

    Args:
        shards: See ``EvaluationClips``.
    """
    found: Media = "video"
    for index in load_indexes(expand_shards(shards)):
        for entry in index.entries:
            if media_member(entry.members, "video"):
                return "video"
            if media_member(entry.members, "image"):
                found = "image"
    return found


class _MediaStore(Protocol):
    """Where the media of annotations are."""

    def place(self, item: Annotation) -> Any:
        """Find an item's media; raises ``MediaError``."""

    def read(self, item: Annotation, place: Any) -> tuple[str, bytes, dict[str, Any]]:
        """Return the extension, the bytes and the metadata; raises ``SampleError``."""

    def files(self, places: Sequence[Any]) -> list[str]:
        """Name the files that hold these media."""


class AnnotatedClips(Dataset[EvaluationSample]):
    """Every item of an annotation file once, with its media.

    Args:
        items: All videos or all images.
        media: A folder of files, or shards: a pattern, or a folder of ``.tar`` files.
        settings: How a clip becomes a model's input.
        frame_order: "reversed" plays every clip backwards.
        bad: Collects what cannot be found or read.

    Raises:
        ValueError: If nothing is found, or videos and images are mixed.
    """

    lost: Mapping[str, int] = {}

    def __init__(
        self,
        items: Sequence[Annotation],
        media: str,
        settings: ClipSettings,
        frame_order: FrameOrder = "forward",
        bad: BadSamples | None = None,
    ) -> None:
        kinds: set[Media] = {item.kind for item in items}
        if len(kinds) != 1:
            raise ValueError("annotations of videos and images cannot be evaluated together")
        self.kind: Media = kinds.pop()
        self._items = list(items)
        self.settings = settings
        self.frame_order = frame_order
        self._bad = bad or BadSamples()
        self._store = _open_store(media, self.kind)
        self._places: list[Any] = []
        for item in self._items:
            try:
                self._places.append(self._store.place(item))
            except MediaError as error:
                self._places.append(error)
        missing = [place for place in self._places if isinstance(place, MediaError)]
        if len(missing) == len(self._items):
            raise ValueError(
                f"not one of the {len(missing)} {self.kind}s of the annotations is in {media}; "
                f"the first: {missing[0]}"
            )
        if missing:
            first = "; ".join(error.detail for error in missing[:_NAMED])
            text = "%d of %d %ss are missing or ambiguous in %s, the first are: %s"
            logger.warning(text, len(missing), len(self._items), self.kind, media, first)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> EvaluationSample:
        item = self._items[index]
        try:
            raw = self.raw(index)
            frames = load_frames(raw, self.kind, self.settings)
        except SampleError as error:
            self._bad.add(BadSample("", item.key, error.reason, error.detail))
            return EvaluationSample(item.key, index, None, item.captions, {}, error.reason)
        video = eval_transform(frames, self.settings)
        if self.frame_order == "reversed":
            video = video.flip(0)
        return EvaluationSample(item.key, index, video, item.captions, raw.metadata, None)

    def media(self, index: int) -> tuple[str, bytes]:
        """Return the extension and the bytes of a clip's file.

        Raises:
            SampleError: If it can no longer be read.
        """
        raw = self.raw(index)
        return raw.extension, raw.data

    def film(self, index: int) -> bytes | Path:
        """Return a clip's file, which may be too long to be read whole, or its bytes in a shard.

        Raises:
            MediaError: If there is none.
            SampleError: If it can no longer be read.
        """
        place = self._places[index]
        if isinstance(place, MediaError):
            raise place
        return place if isinstance(place, Path) else self.raw(index).data

    def fingerprint(self) -> str:
        """Tell states of the annotations and media apart; media by names, sizes and times."""
        places = [place for place in self._places if not isinstance(place, MediaError)]
        return _digest(repr(self._items), self._store.files(places))

    def raw(self, index: int) -> RawSample:
        """Read an item's media; nothing is decoded.

        Raises:
            MediaError: If there is none.
            SampleError: If it can no longer be read.
        """
        item, place = self._items[index], self._places[index]
        if isinstance(place, MediaError):
            raise place
        extension, data, metadata = self._store.read(item, place)
        return RawSample(item.key, index, extension, data, item.captions, metadata)


class _Folder:
    def __init__(self, root: Path, kind: Media) -> None:
        self._folder = MediaFolder(root, kind)

    def place(self, item: Annotation) -> Path:
        return self._folder.find(item.media, *item.aliases)

    def read(self, item: Annotation, place: Path) -> tuple[str, bytes, dict[str, Any]]:
        try:
            data = place.read_bytes()
        except OSError as error:
            raise SampleError("unreadable", f"{place}: {error.strerror}") from error
        return place.suffix[1:].lower(), data, {START: item.start, END: item.end}

    def files(self, places: Sequence[Path]) -> list[str]:
        return [str(place) for place in places]


class _Shards:
    """Samples under their keys, or under the names that ``make_shards`` keeps as metadata."""

    def __init__(self, pattern: str, kind: Media) -> None:
        self._set = ShardSet(pattern, kind)
        self._pattern = pattern
        self._named: dict[str, set[int]] = {}
        for number in range(len(self._set)):
            shard, sample = self._set.locate(number)
            metadata = self._set.metadata(shard, sample)
            items = metadata.get("items")
            names: list[Any] = [self._set.name(shard, sample)[1]]
            if isinstance(items, list):
                names = [item.get("id") for item in items if isinstance(item, dict)]
            for name in (*names, metadata.get("media")):
                if isinstance(name, str):
                    self._named.setdefault(stem(name), set()).add(number)

    def place(self, item: Annotation) -> int:
        for name in (item.key, item.media, *item.aliases):
            found = self._named.get(stem(name), set())
            if len(found) == 1:
                return next(iter(found))
            if found:
                raise MediaError("ambiguous", f"{len(found)} samples of the shards are {name!r}")
        raise MediaError("missing", f"{item.media!r} is not in {self._pattern}")

    def read(self, item: Annotation, place: int) -> tuple[str, bytes, dict[str, Any]]:
        raw = self._set.read(*self._set.locate(place))
        window = {START: item.start, END: item.end}
        if "items" in raw.metadata:  # make_shards has cut the clip, or written where it starts
            window = {name: raw.metadata.get(name) for name in window}
        return raw.extension, raw.data, window

    def files(self, places: Sequence[int]) -> list[str]:
        return self._set.paths


def _open_store(media: str, kind: Media) -> _MediaStore:
    folder = Path(media)
    if not folder.is_dir():
        return _Shards(media, kind)
    names = (name for name in os.listdir(folder) if not is_leftover(name))
    shards = any(name.endswith(SHARD_SUFFIX) for name in names)
    return _Shards(media, kind) if shards else _Folder(folder, kind)


def _digest(text: str, files: Sequence[str]) -> str:
    digest = hashlib.sha256(text.encode())
    for file in files:
        status = os.stat(file)
        digest.update(repr((os.path.basename(file), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()
