"""Timecodes: numbers of frames as hours, minutes, seconds and frames (SMPTE ST 12-1)."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

_NTSC = Fraction(1000, 1001)
# What editors count; the rest of the world's rates are not known to them.
_RATES = sorted([*(Fraction(n) for n in (24, 25, 30, 48, 50, 60)),
                 *(n * _NTSC for n in (24, 30, 48, 60))])  # fmt: skip
_SAME = Fraction(1, 10_000)
_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.,])(\d{2,3})")


class Timebase(NamedTuple):
    """What timecodes count.

    Attributes:
        rate: Frames per second.
        drop: Whether numbers are dropped, so that 29.97 or 59.94 frames per second keep up with
            the clock: the first 2 or 4 of every minute but each tenth.
    """

    rate: Fraction
    drop: bool = False

    @property
    def nominal(self) -> int:
        """Frame numbers in a second."""
        return max(round(self.rate), 1)

    @property
    def label(self) -> str:
        """Name such as ``25fps`` or ``29.97df``."""
        return f"{float(self.rate):.5g}" + ("df" if self.drop else "fps")

    def frame(self, seconds: float) -> int:
        """Return the number of the frame nearest to a time."""
        return round(seconds * self.rate)

    def timecode(self, frame: int) -> str:
        """Write a frame's number, counted from midnight; after 24 hours it begins anew."""
        frame %= self._counted(24 * 60)
        if self.drop:
            tens, rest = divmod(frame, self._counted(10))
            # The first minute of ten is whole, and the numbers come back minute by minute.
            minutes = max(rest - self._dropped, 0) // (60 * self.nominal - self._dropped)
            frame += self._dropped * (9 * tens + minutes)
        seconds, number = divmod(frame, self.nominal)
        colon = ";" if self.drop else ":"
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return f"{hours:02d}:{minutes:02d}:{seconds % 60:02d}{colon}{number:02d}"

    def number(self, timecode: str) -> int | None:
        """Return the number of a frame that has a timecode, None if none can have it."""
        found = _TIMECODE.fullmatch(timecode.strip())
        if found is None:
            return None
        hours, minutes, seconds, number = (int(found[i]) for i in (1, 2, 3, 5))
        frame = ((60 * hours + minutes) * 60 + seconds) * self.nominal + number
        if self.drop:
            total = 60 * hours + minutes
            frame -= self._dropped * (total - total // 10)
        same = hours < 24 and re.findall(r"\d+", self.timecode(frame)) == [
            *found.group(1, 2, 3),
            f"{number:02d}",
        ]
        return frame if same else None

    @property
    def _dropped(self) -> int:
        return self.nominal // 15 if self.drop else 0

    def _counted(self, minutes: int) -> int:
        """Return the frames of 1, or of any tens of minutes."""
        return minutes * 60 * self.nominal - self._dropped * (minutes - minutes // 10)


def drops(rate: Fraction, timecode: str) -> bool:
    """Tell whether timecodes of a video drop numbers.

    Args:
        rate: Frames per second.
        timecode: Of its first frame, with ``;`` or ``.`` before the frames if they do; without one
            they do where they can, as editors have it.
    """
    can = any(_close(rate, n * _NTSC) for n in (30, 60))
    return can and (not timecode or ";" in timecode or "." in timecode)


def editors_rate(rate: Fraction) -> Fraction:
    """Return the rate at which editors count the frames of a video.

    It is the video's own one if editors know it, else the lowest that is a multiple of it or the
    highest that it is a multiple of, else the nearest.
    """
    for one, other in ((r, r / rate) for r in _RATES):
        if _close(other, Fraction(round(other))):
            return one
    for one, other in ((r, rate / r) for r in reversed(_RATES)):
        if _close(other, Fraction(round(other))):
            return one
    return min(_RATES, key=lambda r: abs(r - rate))


def _close(one: Fraction, other: Fraction) -> bool:
    return abs(one - other) <= _SAME * other
