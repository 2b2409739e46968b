import pytest
import torch

from benchmarks import block, common, encoder, ggml, long_video, scan_report
from benchmarks.scan_cases import BOTH, COPY, FORWARD, ONE, ONE_CALL, TRAINING, TWO_CALLS, Case
from vmm.types import VideoFeatures

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the bars of a CPU")


def measured(bars):
    assert len({bar.what for bar in bars}) == len(bars)
    return {bar.what: (bar.promised, round(bar.measured, 6), bar.at_most) for bar in bars}


def rows_of(case, times, **extra):
    return [
        case._asdict() | {"variant": name, "length": length, "ms": ms} | extra
        for name, points in times.items()
        for length, ms in points.items()
    ]


def test_the_scans_bars_are_the_worst_of_widths_and_long_sequences():
    narrow = {
        "vmm cpu": {197: 1, 1569: 2, 3137: 4},
        "vmm chunked": {1569: 20, 3137: 30},
        "vmm reference": {1569: 3},  # no other package
        COPY: {197: 0.1, 1569: 0.1, 3137: 0.1},  # no scan
        "transformers": {197: 20, 1569: 200, 3137: 800},
        "mambapy": {197: 14, 1569: 130},
        ggml.NAME: {197: 2, 1569: 50, 3137: 80},  # forward only: not among the others
    }
    wide = {"vmm cpu": {197: 1, 1569: 5}, "transformers": {197: 30, 1569: 300}}
    rows = rows_of(Case(ONE, FORWARD, 384, 1), narrow) + rows_of(Case(ONE, FORWARD, 1152, 1), wide)
    rows += rows_of(Case(ONE, FORWARD, 384, 4), {"vmm cpu": {1569: 9}, "mambapy": {1569: 9}})
    assert measured(scan_report.bars(rows)) == {
        "vmm cpu: times faster than other packages, forward, 197 tokens": (13, 14, False),
        "vmm cpu: times faster than other packages, forward, from 1569 tokens on": (45, 60, False),
        "vmm chunked: times faster than other packages, forward, from 1569 tokens on": (
            6,
            6.5,
            False,
        ),
        f"vmm cpu: times faster than {ggml.NAME}, forward, from 1569 tokens on": (15, 20, False),
    }


def test_one_call_is_held_against_two_and_to_its_memory():
    case = Case(BOTH, TRAINING, 384, 1)
    rows = rows_of(case, {ONE_CALL: {197: 9, 1569: 10}}, extra_activations=0.7)
    rows += rows_of(case, {TWO_CALLS: {197: 9, 1569: 14}})
    speed = f"{ONE_CALL}: times faster than {TWO_CALLS}, {TRAINING}, from 1569 tokens on"
    memory = f"{ONE_CALL}: extra memory in activations, from 1569 tokens on"
    expected = {speed: (1.3, 1.4, False), memory: (0.5, 0.7, True)}
    assert measured(scan_report.bars(rows)) == expected


def test_errors_are_those_of_our_scan():
    gradients = dict.fromkeys(scan_report.GRADIENTS, 1e-6)
    mine = {"task": "error", "variant": "vmm cpu", "output": 1e-6} | gradients | {"delta": 5e-6}
    theirs = {"task": "error", "variant": "mambapy", "output": 1.0} | gradients
    assert measured(scan_report.bars([mine, theirs])) == {
        "vmm cpu: error of the output": (2e-6, 1e-6, True),
        "vmm cpu: error of the worst gradient": (1e-5, 5e-6, True),
    }


def test_the_blocks_bars_are_of_the_forward_pass_with_onednn():
    times = {"block_ms": 10, "products_ms": 5, "scan_ms": 4, "rest_ms": 1}
    row = {"width": "Ti", "pass": "forward", "tokens": 1569, "precision": "fp32 oneDNN"}
    row |= {"freed memory": "kept", "scan_share": 0.4, "block_to_products": 2.5} | times
    others = [
        row | change
        for change in (
            {"pass": "forward+backward"},
            {"tokens": 197},
            {"precision": "fp32"},
            {"freed memory": "given back"},
        )
    ]
    assert measured(block.bars([row, *others])) == {
        "scan and convolutions : block, Ti, 1569 tokens": (0.3, 0.4, True),
        "block : matrix products, Ti, 1569 tokens": (2.0, 2.5, True),
    }


def test_permutations_have_a_bar_in_every_order_but_the_spatial_one():
    row = {"width": "Ti", "pass": "forward", "tokens": 1569, "scan order": "spatial"}
    row |= {"permutation_share": 0.2}
    rows = [row, row | {"scan order": "st_v1", "permutation_share": 0.06}]
    assert measured(block.bars(rows)) == {
        "permutations : block, st_v1, Ti, forward, 1569 tokens": (0.05, 0.06, True)
    }


class FakeRace:
    def __init__(self, seconds):
        self.seconds = seconds

    def run(self, size, variants):
        assert set(variants) == set(self.seconds)
        return {name: common.Timing(s, s, 1) for name, s in self.seconds.items()}


def test_two_layers_stand_for_all(monkeypatch):
    monkeypatch.setattr(common, "extra_memory", lambda call: 3 * 2**20)
    race = FakeRace({f"{encoder.TI}|0": 0.5, f"{encoder.TI}|2": 0.7})
    (row,) = encoder.time_clip(race, [encoder.TI], 1, False, 32)
    assert row["seconds"] == pytest.approx(0.5 + 24 * 0.1)
    assert row["extra_mib"] == 3 and not row["whole"]
    race = FakeRace({f"{encoder.TI}|24": 2.0})
    (whole,) = encoder.time_clip(race, [encoder.TI], 1, True, 32)
    assert whole["seconds"] == 2.0 and whole["whole"]
    assert encoder.chosen([whole, row], "seconds") == {(encoder.TI, 1): 2.0}
    assert "1.45 to 1.45 times" in encoder.fit([whole, row])


def test_encoders_are_compared_at_each_number_of_frames():
    rows = [
        {"variant": name, "frames": frames, "whole": False, "seconds": seconds}
        for name, times in {
            encoder.TI: {4: 1, 8: 2, 16: 4, 32: 8, 64: 16},
            encoder.VIT_TI: {4: 1, 8: 3, 16: 8, 32: 24},
        }.items()
        for frames, seconds in times.items()
    ]
    text = f"{encoder.TI}: times faster than {encoder.VIT_TI}"
    assert measured(encoder.bars(rows)) == {
        f"{text}, 8 frames": (1.0, 1.5, False),
        f"{text}, 16 frames": (1.0, 2, False),
        f"{text}, 32 frames": (2.5, 3, False),
    }


def test_the_loop_is_used_where_it_is_named(monkeypatch):
    monkeypatch.setenv(encoder.BACKEND_VARIABLE, "chunked")
    used = []

    def model(video):
        used.append(encoder.os.environ[encoder.BACKEND_VARIABLE])
        return VideoFeatures(video, video, None)

    for name in (encoder.TI, encoder.TI_LOOP, encoder.TI):
        encoder.call_of(name, model, torch.zeros(1))()
    assert used == ["chunked", "reference", "chunked"]


def test_long_videos_are_held_to_the_clip_and_to_one_pass():
    def row(variant, frames, us, **more):
        return {"variant": variant, "frames": frames, "us_per_token": us} | more

    rows = [
        row(long_video.ONE_PASS, 8, 120.0, error=0.0),
        row(long_video.PIECES, 8, 200.0, error=2e-6),
        row(long_video.HALF, 8, 200.0, error=0.1),
        row(long_video.HALF, 3600, 140.0, peak_gib=2.0),
        row(long_video.PIECES, 3600, 150.0, peak_gib=3.0),
        row(long_video.ONE_PASS, 8, 100.0, error=0.0),
    ]
    assert measured(long_video.bars(rows)) == {
        "3600 frames: time per token : of a clip": (1.3, 1.5, True),
        "largest difference from one pass": (1e-5, 2e-6, True),
        "3600 frames: peak, GiB": (6.0, 3.0, True),
    }
