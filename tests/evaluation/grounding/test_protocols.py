import json

import pytest

from vmm.evaluation.grounding.protocols import (
    ODD,
    OUTSIDE,
    SETS,
    cut,
    published_size,
    read_moments,
)


def test_sentences_of_one_video_share_its_number(toys, tmp_path):
    file = read_moments("moments", toys.write(tmp_path))
    assert [q.key for q in file.queries if q.video == 2] == [
        "test2_white",
        "test2_red",
        "test2_green",
    ]
    assert len(file.videos) == 4 and file.videos[1].media == "test é1.mp4"
    red = file.queries[8]
    assert red.moments == [[1, 4], [5, 6]] and red.true.shape == (2, 2) and red.duration == 6
    assert (red.clips, red.marks) == ([0], [[4]])
    assert not file.left_out and not file.beyond


def test_moments_end_with_the_video_and_odd_ones_are_counted(tmp_path):
    rows = [("a", [[1, 9]]), ("b", [[6, 7]]), ("c", [[3, 2]]), ("d", [[1, 2], [8, 9]]), (" ", [])]
    records = [
        {"video": "v", "query": query, "duration": 5, "relevant_windows": windows}
        for query, windows in rows
    ]
    path = tmp_path / "x-moments.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    file = read_moments("moments", path)
    assert [q.moments for q in file.queries] == [[[1, 5]], [[1, 2]]]
    assert file.left_out == {ODD: 2, OUTSIDE: 1} and file.beyond == 2 and len(file.odd) == 2
    assert cut([[1, 9]], None) == [[1, 9]]


def test_moments_that_are_not_public(tmp_path):
    path = tmp_path / "highlight_test_release.jsonl"
    path.write_text(json.dumps({"qid": 1, "query": "q", "vid": "v_60.0_210.0", "duration": 150}))
    (query,) = read_moments("qvhighlights", path).queries
    assert query.moments == [] and query.true.shape == (0, 2)


def test_other_sets_and_empty_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no set of moments 'tacos'; known are moments"):
        read_moments("tacos", tmp_path)
    path = tmp_path / "a.csv"
    path.write_text("video,query,start,end,duration\nv,q,8,9,5\n")
    with pytest.raises(ValueError, match=r"every moment in .* begins after the end"):
        read_moments("moments", path)


def test_published_sizes_with_their_odd_rows_or_without():
    assert published_size("charades-sta", 3720) == "test"
    assert published_size("charades-sta", 12404) == published_size("charades-sta", 12408) == "train"
    assert published_size("qvhighlights", 1551) is None
    assert set(SETS) == {"moments", "charades-sta", "activitynet-moments", "qvhighlights"}
