"""The file of a result: the same envelope for all evaluations, and how it is written and read."""

from __future__ import annotations

import hashlib
import json
import platform
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.findings import Finding
from vmm.version import __version__


@dataclass(frozen=True, kw_only=True)
class Result(ABC):
    """What an evaluation measured, and all that the numbers depend on.

    Each evaluation adds its numbers as further fields; the fields are the keys of the JSON.

    Attributes:
        name: Of the result.
        command: That measured it.
        model: ``encoder``, ``parameters``, ``checkpoint`` and ``sha256``.
        data: What was asked.
        settings: How it was measured.
        findings: What is off with it.
        versions: Of what computed it.
    """

    SCHEMA: ClassVar[int] = 1
    """Version of the layout."""
    FILE_NAME: ClassVar[str]
    COMMAND: ClassVar[str]
    """What writes it."""

    name: str
    command: str
    model: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    findings: list[Finding]
    versions: dict[str, str]

    def content(self) -> dict[str, Any]:
        """Give what is written."""
        return {
            "schema": self.SCHEMA,
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "findings": [vars(finding) for finding in self.findings],
        }

    def write(self, folder: Path) -> Path:
        """Write the file into an existing folder, and give its path."""
        path = folder / self.FILE_NAME
        path.write_text(json.dumps(self.content()), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Args:
            path: The file, or its folder.

        Raises:
            ValueError: If it is missing or no result of this kind.
        """
        path = path / cls.FILE_NAME if path.is_dir() else path
        if not path.exists():
            raise ValueError(
                f"{path} cannot be read as a result of `{cls.COMMAND}`: it is not there; name the "
                f"folder that `{cls.COMMAND}` wrote (its --out)"
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path} cannot be read as a result of `{cls.COMMAND}`: {error}"
            ) from error
        if not isinstance(content, dict) or content.get("schema") != cls.SCHEMA:
            raise ValueError(
                f"{path} is no result of this version of `{cls.COMMAND}`; run it again"
            )
        missing = sorted(cls.needed() - content.keys())
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}; run `{cls.COMMAND}` again")
        findings = [Finding(**finding) for finding in content["findings"]]
        return cls(**cls.taken(content) | {"findings": findings})

    @classmethod
    def needed(cls) -> set[str]:
        """Name what a file must hold."""
        return {field.name for field in fields(cls)}

    @classmethod
    def taken(cls, content: dict[str, Any]) -> dict[str, Any]:
        """Give the fields' values from what was written."""
        return {name: content[name] for name in cls.needed()}

    @abstractmethod
    def table(self) -> str:
        """Format it for the terminal."""

    @abstractmethod
    def card(self) -> list[tuple[str, str]]:
        """List everything that the numbers depend on, as pairs of a name and a value."""

    def look(self, order: str = "") -> list[tuple[str, str]]:
        """List how a clip became the model's input, and in which order it was played."""
        settings = self.settings
        rate = ", ".join(f"{k} {settings[k]:g}" for k in ("fps", "stride") if k in settings)
        frames = f"{settings['num_frames']}, sampling {settings['sampling']!r} without draws"
        frames += rate and f", {rate}"
        if settings.get("media") == "image":
            frames, order = "stills", ""
        return [
            ("frames", f"{frames}{order and ', '}{order}"),
            ("resolution", resolution(settings)),
        ]

    def origin(self) -> list[tuple[str, str]]:
        """List what every card ends with: from what, by what and how it was made."""
        settings, model = self.settings, self.model
        return [
            ("decoder", settings["decoder"]),
            ("device", settings["device"]),
            ("model", f"{model['encoder']}, {model['parameters'] / 1e6:.2f} M parameters"),
            ("checkpoint", f"{model['checkpoint']}, sha256 {model['sha256']}"),
            ("versions", ", ".join(f"{k} {v}" for k, v in self.versions.items())),
            ("command", self.command),
        ]


_RATES = {"fps": "fps", "dense": "stride"}
"""Samplings -> what else chooses their frames."""


def versions() -> dict[str, str]:
    """Name the versions that a number may depend on."""
    packages = {name: version(name) for name in ("torch", "transformers", "av", "numpy")}
    return {"python": platform.python_version(), **packages, "vmm": __version__}


def clip_card(clip: ClipSettings, sampled: bool = True) -> dict[str, Any]:
    """Describe how a video becomes the model's input.

    Args:
        clip: As the model wants it.
        sampled: Whether the settings also choose the frames.
    """
    names = ["image_size", "fit", "crop_pct", "interpolation", "antialias", "mean", "std"]
    names += ["decoder", *(["num_frames", "sampling"] if sampled else [])]
    if sampled:
        names += [_RATES[clip.sampling]] if clip.sampling in _RATES else []
    values = {name: getattr(clip, name) for name in names}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def resolution(settings: dict[str, Any]) -> str:
    """Say how ``clip_card`` makes frames small and square; older results tell less."""
    kept = settings.get("crop_pct", 1)
    words = [f"{settings['image_size']} pixels", settings["fit"] + (f" of {kept:g}" * (kept != 1))]
    if "antialias" in settings:
        how = "with" if settings["antialias"] else "without"
        words.append(f"{settings['interpolation']} {how} antialiasing")
    return ", ".join(words)


def content_hash(content: object) -> str:
    """Tell contents apart, in 16 digits.

    Args:
        content: What JSON can hold; everything else counts as its text.
    """
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def count_problems(problems: Sequence[str | None], what: str) -> Counter[str]:
    """Count the reasons why some could not be read.

    Args:
        problems: Of each its reason, None if it could be read.
        what: They are, in the plural.

    Raises:
        ValueError: If not one could be read.
    """
    reasons = Counter(problem for problem in problems if problem is not None)
    if reasons.total() == len(problems):
        raise ValueError(
            f"not one of {len(problems)} {what} could be read ({reasons.most_common(1)[0][0]}); "
            "look at the reasons in the log"
        )
    return reasons


def listed(counts: Mapping[str, int]) -> str:
    """Name reasons and how often each came."""
    return ", ".join(f"{number} {reason}" for reason, number in counts.items())


def unreadable(
    problems: Mapping[str, int],
    number: int,
    kind: str,
    coverage: str,
    asked: tuple[int, int, str] | None = None,
) -> list[Finding]:
    """Say what media that could not be read do to a number.

    Args:
        problems: Reasons, and how many could not be read for each.
        number: How many there are.
        kind: What they are, in the plural.
        coverage: strict (they count as misses) or available (they are left out).
        asked: How much was asked about those that could not be read, how much of all, and what
            that is; None = nothing but what they are.
    """
    if not problems:
        return []
    lost, total, things = asked or (sum(problems.values()), number, kind)
    about = f", with {lost} of {total} {things}" if asked else ""
    effect = (
        f"these count as misses: up to {100 * lost / total:.1f} points"
        if coverage == "strict"
        else "these are left out: the number is of a part of the set"
    )
    return [
        Finding(
            f"unreadable-{kind}",
            f"{sum(problems.values())} of {number} {kind} cannot be read "
            f"({listed(problems)}){about}",
            effect,
        )
    ]


def text_table(rows: Sequence[Sequence[str]], left: int) -> str:
    """Align columns for the terminal; the first ``left`` ones to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


@dataclass(frozen=True, kw_only=True)
class ResultWithNumbers(Result):
    """A result whose numbers are missing where the right answers are not public.

    Attributes:
        numbers: Under ``NUMBERS``; keys of their own in the JSON, null where there are none.
    """

    NUMBERS: ClassVar[tuple[str, ...]]

    numbers: dict[str, Any] | None

    def content(self) -> dict[str, Any]:
        """Give what is written."""
        content = super().content()
        numbers: dict[str, Any] | None = content.pop("numbers")
        return content | (numbers or dict.fromkeys(self.NUMBERS))

    @classmethod
    def needed(cls) -> set[str]:
        """Name what a file must hold."""
        return super().needed() - {"numbers"} | set(cls.NUMBERS)

    @classmethod
    def taken(cls, content: dict[str, Any]) -> dict[str, Any]:
        """Give the fields' values from what was written."""
        numbers = {name: content[name] for name in cls.NUMBERS}
        kept = {name: content[name] for name in super().needed() - {"numbers"}}
        return kept | {"numbers": None if numbers["headline"] is None else numbers}
