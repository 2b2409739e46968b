"""The index: vectors of moments on disk, which grow by whole parts and survive any interruption.

==================================  ==============================================================
``index.json``                      what made the vectors: fingerprint, encoder, windows
``parts/NUMBER-NAME.safetensors``   ``vectors`` (n, E) float32 of length 1, ``spans`` (n, 2)
                                    float64 in seconds, ``records`` (UTF-8 JSON): the videos these
                                    are of, one after the other, and what went wrong
==================================  ==============================================================

The state is what the parts say, read in the order of their names: a record adds moments to those
that the index has of the same content of a video, or begins anew for other content. A record that
fits neither, because its moments are there already, is passed over. So any number of processes may
add parts, be killed, and begin again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from vmm.data.schema import is_leftover
from vmm.search.parts import (
    Floats,
    Part,
    Record,
    Spans,
    blocks_of,
    damaged,
    is_intact,
    map_arrays,
    part_number,
    part_paths,
    read_part,
    write_part,
)
from vmm.search.sources import Source
from vmm.whole import PARTIAL, whole_file

_VERSION = 2
_WITHOUT_SHOTS = 1
"""Version of indexes from before there were shots, which are read as they are."""
_INDEX = "index.json"
_PARTS = "parts"
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class Settings:
    """What made the vectors of an index.

    Attributes:
        fingerprint: Of the encoder.
        encoder: Its folder, or its name on the hub.
        embedding_dim: Width E of the vectors.
        window: Length of a moment, seconds.
        stride: From the start of a moment to the start of the next, seconds.
        num_frames: Frames that are looked at; None = as many as in training.
        shots: Whether moments are shots, from cut to cut: then ``window`` is the longest, and a
            longer shot several moments that do not overlap, so that ``stride`` is ``window``.
    """

    fingerprint: str
    encoder: str
    embedding_dim: int
    window: float
    stride: float
    num_frames: int | None = None
    shots: bool = False


@dataclass
class Video:
    """What the index has of a video.

    Attributes:
        record: The newest, with all moments: ``first`` is 0.
        rows: (part, first row, number of rows) of its moments, in their order.
    """

    record: Record
    rows: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Moments:
    """All moments of an index.

    Attributes:
        vectors: (n, E) of each part, mapped from its file.
        spans: (N, 2) start and end in seconds, of all parts.
        owner: (N,) which of the videos; -1 if the moment is outdated.
        videos: The videos that have moments.
    """

    vectors: list[Floats]
    spans: Spans
    owner: npt.NDArray[np.int32]
    videos: list[Source]


class Index:
    """An index as it is on disk now.

    Args:
        folder: Where it is.
        settings: What made it.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.parts: list[Path] = []
        """In their order, less those that another one replaces."""
        self._paths: list[Path] = []
        self._mapped: dict[Path, tuple[Floats, Spans]] = {}
        self.videos: dict[Source, Video] = {}
        self._read_parts()

    @classmethod
    def create(cls, folder: Path, settings: Settings) -> Self:
        """Create an index, or open the one that is there.

        Raises:
            ValueError: If the folder holds something else, or an index made otherwise.
        """
        if not (folder / _INDEX).exists():
            if folder.exists() and (not folder.is_dir() or set(_names(folder)) - {_PARTS}):
                raise ValueError(f"{folder} is there and no index; name another folder")
            (folder / _PARTS).mkdir(parents=True, exist_ok=True)
            content = {"vmm_index": _VERSION, **asdict(settings)}
            with whole_file(folder / _INDEX) as file:
                file.write_text(json.dumps(content, indent=2) + "\n")
        index = cls.open(folder)
        index.check_encoder(settings.fingerprint, settings.encoder)
        for name in ("window", "stride", "num_frames", "shots"):
            there, wanted = getattr(index.settings, name), getattr(settings, name)
            if there != wanted:
                raise ValueError(
                    f"{folder} was made with {name} {there}, not {wanted}; leave the option out, "
                    "or make another index"
                )
        return index

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an index.

        Raises:
            ValueError: If there is none, or it is damaged.
        """
        return cls(folder, read_settings(folder))

    def check_encoder(self, fingerprint: str, name: str) -> None:
        """Refuse an encoder other than the one that made the index.

        Raises:
            ValueError: With the names of both.
        """
        if fingerprint != self.settings.fingerprint:
            raise ValueError(
                f"{self.folder} was made with the encoder {self.settings.encoder} (fingerprint "
                f"{self.settings.fingerprint[:12]}), not with {name} ({fingerprint[:12]}): their "
                "vectors cannot be compared; use that encoder, or make another index"
            )

    @property
    def num_moments(self) -> int:
        """How many moments can be found."""
        return sum(video.record.count for video in self.videos.values())

    @property
    def num_bytes(self) -> int:
        """Size of the parts on disk."""
        return sum(path.stat().st_size for path in self.parts)

    @property
    def problems(self) -> dict[Source, str]:
        """What could not be encoded, or not to its end, with the reason."""
        return {s: v.record.problem for s, v in self.videos.items() if v.record.problem}

    def add(
        self,
        records: Sequence[Record],
        spans: Sequence[tuple[float, float]],
        vectors: Sequence[Floats],
        removed: Sequence[Source] = (),
    ) -> None:
        """Write a part; it is there whole or not at all.

        Args:
            records: Videos, in the order of their moments.
            spans: Start and end of each moment, seconds.
            vectors: (E,) each.
            removed: Videos to forget first.

        Raises:
            ValueError: If a vector holds something that is no number.
        """
        number = 1 + max((part_number(path) for path in part_paths(self._parts)), default=0)
        shape = (len(vectors), self.settings.embedding_dim)
        rows = np.array(vectors, np.float32).reshape(shape)
        if not np.isfinite(rows).all():
            names = {str(record.source) for record in records}
            raise ValueError(
                f"a vector of {', '.join(sorted(names)[:3])} holds NaN or infinity; nothing is "
                "written: use a model whose weights are whole"
            )
        times = np.array(spans, np.float64).reshape(-1, 2)
        write_part(self._parts, number, Part(records, removed), times, shape[1], [rows])

    def reload(self) -> None:
        """Take in what this or other processes have added or removed."""
        if part_paths(self._parts) != self._paths:
            self._read_parts()

    def moments_of(self, source: Source) -> tuple[Spans, Floats]:
        """Return the moments of a video, in the order they were added.

        Returns:
            (n, 2) start and end in seconds, and (n, E) vectors.

        Raises:
            ValueError: If a part that holds them is damaged or was put together with others.
        """
        spans, vectors = [np.zeros((0, 2))], [np.zeros((0, self.settings.embedding_dim), "f4")]
        for part, first, count in self.videos[source].rows:
            rows, times = self._arrays(part)
            vectors.append(rows[first : first + count])
            spans.append(times[first : first + count])
        return np.concatenate(spans), np.concatenate(vectors)

    def moments(self) -> Moments:
        """Map all vectors, for a search."""
        vectors, spans, owner = [], [np.zeros((0, 2))], [np.zeros(0, np.int32)]
        starts = [0]
        for part in range(len(self.parts)):
            rows, times = self._arrays(part)
            vectors.append(rows)
            spans.append(times)
            owner.append(np.full(len(rows), -1, np.int32))
            starts.append(starts[-1] + len(rows))
        owners = np.concatenate(owner)
        videos = [video for video in self.videos.values() if video.rows]
        for number, video in enumerate(videos):
            for part, first, count in video.rows:
                begin = starts[part] + first
                owners[begin : begin + count] = number
        return Moments(vectors, np.concatenate(spans), owners, [v.record.source for v in videos])

    def compact(self) -> None:
        """Write all parts as one, and remove them and what killed processes left."""
        old = self._paths  # also those that are replaced: else they would come back to life
        if old:
            runs = [run for video in self.videos.values() for run in video.rows]
            spans = [self._arrays(part)[1][first : first + n] for part, first, n in runs]
            # Its place is that of the newest it replaces: parts written meanwhile come after.
            write_part(
                self._parts,
                part_number(old[-1]),
                Part([v.record for v in self.videos.values()], replaces=[p.name for p in old]),
                np.concatenate([np.zeros((0, 2)), *spans]),
                self.settings.embedding_dim,
                (self._arrays(part)[0][first : first + n] for part, first, n in runs),
            )
        for path in old:
            path.unlink()
        for path in self._parts.glob(f"*{PARTIAL}"):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()
        self._read_parts()

    def verify(self) -> list[str]:
        """Read everything and compare it with the checksums; return what is wrong."""
        wrong = []
        for path in self.parts:
            if not is_intact(path):
                wrong.append(str(damaged(path, "its checksum is another one")))
            elif not all(np.isfinite(block).all() for block in blocks_of(map_arrays(path)[0])):
                wrong.append(str(damaged(path, "a vector in it holds NaN or infinity")))
        for source, video in self.videos.items():
            try:
                state = (video.record.size, video.record.mtime_ns)
                if video.record.digest and source.stamp() != state:
                    wrong.append(f"{source} has changed; `vmm encode` encodes it again")
            except OSError:
                wrong.append(f"{source} is not there any more; `vmm encode` forgets it")
        return wrong

    def _arrays(self, part: int) -> tuple[Floats, Spans]:
        """Map a part once."""
        path = self.parts[part]
        if path not in self._mapped:
            self._mapped[path] = map_arrays(path)
        return self._mapped[path]

    @property
    def _parts(self) -> Path:
        return self.folder / _PARTS

    def _read_parts(self) -> None:
        self._paths, self.videos, self._mapped = part_paths(self._parts), {}, {}
        contents = {path: read_part(path, self.settings.embedding_dim) for path in self._paths}
        replaced = {name for content in contents.values() for name in content.replaces}
        self.parts = [path for path in self._paths if path.name not in replaced]
        for number, content in enumerate(contents[path] for path in self.parts):
            for source in content.removed:
                self.videos.pop(source, None)
            row = 0
            for record in content.records:
                self._fold(record, number, row)
                row += record.count

    def _fold(self, record: Record, part: int, row: int) -> None:
        """Take in a record; see the module's description."""
        known = self.videos.get(record.source)
        same = known is not None and known.record.digest == record.digest
        if known is not None and same and record.first == known.record.count:
            total = known.record.count + record.count
            known.record = replace(record, first=0, count=total)
        elif record.first == 0 and not same:
            known = self.videos[record.source] = Video(record)
        else:
            return
        if record.count:
            known.rows.append((part, row, record.count))


def read_settings(folder: Path) -> Settings:
    """Read what made an index.

    Raises:
        ValueError: If there is no index or its ``index.json`` is damaged.
    """
    path = folder / _INDEX
    if not path.is_file():
        raise ValueError(f"{folder} has no {_INDEX}, so it is no index; `vmm encode` makes one")
    try:
        content = json.loads(path.read_bytes())
        version = content.pop("vmm_index")
        if version not in (_WITHOUT_SHOTS, _VERSION) or isinstance(version, bool):
            raise ValueError("it is of another version of vmm")
        if ("shots" in content) != (version == _VERSION):
            raise ValueError("it does not fit its version")
        settings = Settings(**content)
        if not (isinstance(settings.fingerprint, str) and isinstance(settings.encoder, str)):
            raise ValueError("its fingerprint or encoder is no text")
        if type(settings.shots) is not bool:
            raise ValueError("shots must be true or false")
        seconds, counts = (settings.window, settings.stride), [settings.embedding_dim]
        counts += [] if settings.num_frames is None else [settings.num_frames]
        if not all(type(n) in (int, float) and 0 < n < math.inf for n in seconds) or not all(
            type(n) is int and n > 0 for n in counts
        ):
            raise ValueError("window, stride, embedding_dim and num_frames must be positive")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}; make the index again") from error
    return settings


def _names(folder: Path) -> list[str]:
    names = [path.name for path in folder.iterdir() if not path.name.endswith(PARTIAL)]
    return [name for name in names if not is_leftover(name)]
