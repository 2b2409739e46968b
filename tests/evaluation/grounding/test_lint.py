from vmm.evaluation.grounding.lint import lint_file, lint_videos
from vmm.evaluation.grounding.protocols import ODD, OUTSIDE, read_moments
from vmm.evaluation.grounding.scoring import VideoCurves


def codes(findings):
    return [finding.code for finding in findings]


def curves(count, edges=(0.0, 1.0, 2.0, 6.0), problem=None):
    if problem:
        return VideoCurves(problem, [], [], [], [], [])
    rows = [[0.1, 0.2, 0.3]] * count
    return VideoCurves(None, list(edges), rows, rows, [], [])


def test_nothing_is_found_in_sound_moments(toys, tmp_path):
    file = read_moments("moments", toys.write(tmp_path))
    assert not lint_file("moments", file, None)
    videos = [curves(4, edges=range(7)), *[curves(3, edges=range(7))] * 3]
    assert not lint_videos(file.queries, videos, "strict")


def test_what_is_wrong_in_the_file(toys, tmp_path):
    file = read_moments("moments", toys.write(tmp_path))
    again = file.queries[0]._replace(key="again", text=file.queries[0].text.upper() + " ")
    broken = file._replace(
        queries=[*file.queries, again], left_out={ODD: 2, OUTSIDE: 1}, odd=["row 3", "row 4"],
        beyond=5,
    )  # fmt: skip
    found = lint_file("moments", broken, file)
    assert codes(found) == [
        "odd-sentences", "moments-after-the-end", "moments-beyond-the-end", "repeated-sentences",
        "videos-in-both-splits",
    ]  # fmt: skip
    assert "2 of 17 rows" in found[0].message and "row 3" in found[0].message
    assert found[3].message.startswith("1 sentence is")
    assert "4 of 4 videos" in found[4].message and "test é0.mp4" in found[4].message


def test_a_set_of_another_size(toys, tmp_path):
    file = read_moments("moments", toys.write(tmp_path))
    (found,) = lint_file("qvhighlights", file, None)
    assert found.code == "other-sentences" and "val 1550" in found.message


def test_what_is_wrong_with_the_videos(toys):
    queries = [
        toys.query("a", 0, [(1, 8)]),
        toys.query("b", 1, [(1, 2)]),
        toys.query("c", 2, [(2, 3)]),
        toys.query("d", 2, [(0, 6)]),
    ]
    videos = [curves(1), curves(1, problem="truncated"), curves(2)]
    videos[2].curves[0] = [0.1, 0.1, 0.1]
    found = lint_videos(queries, videos, "strict")
    assert codes(found) == ["unreadable-videos", "shorter-videos", "coarse-frames", "level-curves"]
    assert "1 truncated" in found[0].message and "25.0 points" in found[0].effect
    assert "'a'" in found[1].message
    assert found[2].message.startswith("1 of 3 moments")
    assert found[3].message.startswith("1 of 3 curves")
