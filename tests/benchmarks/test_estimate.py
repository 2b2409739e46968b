"""Estimates follow from counts and assumptions, by hand too, and are those of the page."""

import json

import pytest

from benchmarks import estimate
from benchmarks.estimate import A100, H100, JPEG, MP4, Assumptions, Layout, Part, Run, floor_s, work
from benchmarks.estimate_counts import Counts, count

COUNTS = Counts(10.0, 1.0, 4.0, 3.0, 100.0, {"9": 50.0}, 7, 11)


def test_work_by_hand():
    video = Part(samples=5, frames=8, visible=9, copies=2)
    alone = work(Run("", (video,), passes=3, batch=5), COUNTS)
    assert alone.flops == 2 * (3 * 10 * 10) * 5 * 2 * 3
    assert alone.moved == (4 + 2 * 3) * 10 * 5 * 2 * 3
    more = work(Run("", (video,), 3, 5, teacher=True, text=True), COUNTS)
    assert more.flops == 2 * (3 * 10 * 10 + 3 * 50 + 8 * 100) * 30
    assert more.moved == alone.moved
    asked = estimate.Work(H100.flops * 6, H100.bytes_per_s * 2)
    assert floor_s(asked, 4, H100) == pytest.approx(2.0)


def test_the_slowest_part_bounds_a_run():
    run = Run("", (Part(1000, 8, 9),), 10, 100)
    given = Assumptions(products=0.5, bandwidth=0.5, rest=2.0, workers_per_gpu=4)
    counts = COUNTS._replace(products_per_token=H100.flops / 600, kept_per_token=0.0)
    layout = Layout("", 1e6, 0, 0.0, 0.0)
    fast = estimate.estimate(run, 8, layout, counts, given)
    # 10,000 clips x 10 tokens x 6 operations / 600 seconds at the peak, on 8, four times as long.
    assert fast["bound"] == "GPU" and fast["steps"] == 100
    assert fast["hours"] * 3600 == pytest.approx(1000 / 8 * 4, rel=1e-6)
    assert fast["dollars"] == pytest.approx(fast["hours"] * 8 * 3)
    decoding = estimate.estimate(
        run, 8, layout._replace(decode_s=10.0, whole_s=40.0), counts, given
    )
    assert decoding["bound"] == "decoding"
    assert decoding["hours"] * 3600 == pytest.approx(10_000 * (40 + 0.013) / 32)
    assert decoding["workers_for_gpu"] == pytest.approx(10_000 * 40.013 / 500, rel=1e-6)
    stored = estimate.estimate(run, 16, layout._replace(clip_bytes=1e12), counts, given)
    assert stored["bound"] == "storage"
    assert stored["hours"] * 3600 == pytest.approx(10_000 * 1e12 / 1e10)
    assert stored["read_gb_per_s_node"] == pytest.approx(5)
    linked = estimate.estimate(run, 16, layout, counts._replace(encoder_parameters=10**13), given)
    assert linked["bound"] == "all-reduce"
    assert linked["step_ms"]["all-reduce"] == pytest.approx(1e3 * 2 * 15 / 16 * 4e13 / 50e9)


def test_decoding_takes_no_more_than_the_whole_clip():
    eight, long = Part(1, 8, 0), Part(1, 64, 0, 2)
    assert MP4.read_s(eight) == pytest.approx(0.0934 + 0.013)
    assert MP4.read_s(long) == pytest.approx(0.210 + 2 * 8 * 0.013)
    assert JPEG.read_s(long) == pytest.approx(8 * 0.0035 + 2 * 8 * 0.013)


def test_published_runs_have_their_published_steps():
    steps = {row["run"]: row["steps"] for row in estimate.estimates(COUNTS_OF_ALL, Assumptions())}
    assert steps["stage 1, K400"] == pytest.approx(800 * 117, rel=0.01)
    assert steps["stage 2, 17M, masked"] == pytest.approx(10 * 4257, rel=0.002)
    assert steps["stage 2, 25M, masked"] == pytest.approx(10 * 6268, rel=0.002)
    assert steps["stage 2, 5M, unmasked"] == pytest.approx(5 * 1049, rel=0.002)
    assert steps["K400, M, 64 frames"] == pytest.approx(45 * 3756, rel=0.001)


COUNTS_OF_ALL = COUNTS._replace(text=dict.fromkeys(map(str, estimate.VISIBLE), 50.0))


def test_an_author_who_took_twice_the_floor_is_told(monkeypatch):
    run = Run("", (Part(1000, 8, 9),), 1, 10)
    counts = COUNTS._replace(products_per_token=A100.flops / 60, kept_per_token=0.0)
    monkeypatch.setattr(estimate, "REPORTED", ((run, 10, 200 / 86400),))
    (row,) = estimate.paces(counts)
    assert row["times"] == pytest.approx(2.0, rel=1e-6)
    assert row["clips_per_s_gpu"] == pytest.approx(0.5)


def test_the_page_has_what_the_code_says(root):
    page = (root / "docs/guides/scale_estimates.md").read_text("utf-8")
    for name, table in estimate.tables(estimate.stored_counts(), Assumptions()).items():
        assert table in page, f"put the table {name!r} of `python -m benchmarks.estimate` there"


def test_the_newest_result_counts_whatever_its_processor_is_called(tmp_path):
    for name, value in (
        ("intel_2026-11-28", 1.0),
        ("amd_2026-11-29", 2.0),
        ("amd_2026-11-29_short", 3.0),
    ):
        settings = {"settings": {"counts": COUNTS._replace(kept_per_token=value)._asdict()}}
        (tmp_path / f"estimate_{name}.json").write_text(json.dumps(settings), "utf-8")
    assert estimate.stored_counts(tmp_path).kept_per_token == 2.0
    for path in tmp_path.glob("*[0-9].json"):
        path.unlink()
    with pytest.raises(ValueError, match="no estimate"):  # a short one is none
        estimate.stored_counts(tmp_path)


def test_no_result_file_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"no estimate in .*run `python -m benchmarks.estimate`"):
        estimate.stored_counts(tmp_path)


@pytest.mark.slow
def test_stored_counts_are_those_of_the_models():
    found, stored = count(estimate.VISIBLE), estimate.stored_counts()
    assert found == stored
    tokens = 1569
    scan = 32 * 2 * 9 * 1152 * 16 * tokens
    norms = 5 * 576 * 33 * tokens
    # What `vmm summary stage1_mvp.yaml overlays/videomamba_m_k400.yaml` says of both.
    assert found.products_per_token * tokens + scan + norms == pytest.approx(129_940_773_696)
    assert found.teacher_per_frame * 8 == 142_059_681_792
    assert found.kept_per_token * 321 == pytest.approx(218_443_254, rel=5e-3)  # and what heads keep
