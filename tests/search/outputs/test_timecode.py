from fractions import Fraction

import numpy as np
import pytest
from opentimelineio.opentime import RationalTime, to_timecode

from vmm.search.outputs.timecode import Timebase, drops, editors_rate

NTSC = {n: Fraction(n * 1000, 1001) for n in (24, 30, 60)}
BASES = [
    *(Timebase(Fraction(n)) for n in (24, 25, 30, 50, 60)),
    *(Timebase(rate) for rate in NTSC.values()),
    *(Timebase(NTSC[n], drop=True) for n in (30, 60)),
]


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.label)
def test_timecodes_are_those_of_opentimelineio_and_lead_back(base):
    day = base.number("23:50:00:00")  # later, OpenTimelineIO begins anew with the clock
    rng = np.random.default_rng(0)
    around = [m * 60 * base.nominal + d for m in (1, 2, 9, 10, 11, 60) for d in range(-40, 5)]
    for frame in [*around, *rng.integers(0, day, 300).tolist(), 0, day]:
        code = base.timecode(frame)
        time = RationalTime(frame, float(base.rate))
        assert code == to_timecode(time, float(base.rate), drop_frame=base.drop)
        assert base.number(code) == frame
    last = base.number("23:59:59:23")
    whole = next(n for n in range(last, last + 99) if base.timecode(n + 1) < base.timecode(n))
    assert base.timecode(whole)[:8] == "23:59:59" and base.number(base.timecode(whole)) == whole
    assert base.timecode(whole + 1) == base.timecode(0)


def test_drop_frame_keeps_up_with_the_clock():
    base = Timebase(NTSC[30], drop=True)
    assert [base.timecode(n) for n in (1799, 1800, 17982)] == [
        "00:00:59;29", "00:01:00;02", "00:10:00;00",
    ]  # fmt: skip
    for seconds in (60, 599, 3600, 86_000):
        hours, minutes, rest, frames = map(
            int, base.timecode(base.frame(seconds)).replace(";", ":").split(":")
        )
        shown = 3600 * hours + 60 * minutes + rest + frames / 30
        assert shown == pytest.approx(seconds, abs=0.15)
    assert Timebase(NTSC[30]).timecode(base.frame(3600)) == "00:59:56:12"


def test_what_is_no_timecode_of_a_rate():
    drop = Timebase(NTSC[30], drop=True)
    for text in ("00:01:00;00", "00:01:00;30", "24:00:00;00", "1:00:00;00", "00:00:60;00", "x", ""):
        assert drop.number(text) is None, text
    assert drop.number("00:10:00;00") == 17982 and drop.number(" 00:00:01;00 ") == 30
    assert Timebase(Fraction(25)).number("00:00:00:25") is None


def test_who_drops_numbers():
    assert drops(NTSC[30], "") and drops(NTSC[60], "01:00:00;00") and drops(NTSC[30], "01:00:00.00")
    assert not drops(NTSC[30], "01:00:00:00")
    assert not drops(NTSC[24], "") and not drops(Fraction(30), "01:00:00;00")
    assert drops(Fraction(2997, 100), "")  # as AVI has it


def test_rates_that_editors_count():
    for rate, counted in (
        (Fraction(25), 25), (NTSC[24], NTSC[24]), (Fraction(2997, 100), NTSC[30]),
        (Fraction(12), 24),
        (Fraction(10), 30), (Fraction(25, 2), 25), (Fraction(120), 60), (Fraction(240), 60),
        (NTSC[60] * 2, NTSC[60]), (Fraction(29), 30 * Fraction(1000, 1001)), (Fraction(1), 24),
    ):  # fmt: skip
        assert editors_rate(rate) == counted, rate
