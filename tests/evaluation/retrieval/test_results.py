import json
import re
from dataclasses import replace

import pytest

from tests.evaluation import contents
from vmm.evaluation.retrieval.results import (
    RetrievalResult,
    comparison_rows,
    protocol_differences,
)


def test_the_terminal_table_has_both_directions_and_chance(result):
    table = RetrievalResult.read(result).table()
    assert "256 captions, 256 clips (1 unreadable, counted as misses), 8 frames forward" in table
    assert re.search(r"text-to-video +dual encoder +81\.2 \(77\.0 to 85\.0\) +95\.0", table)
    assert re.search(r"video-to-text +dual encoder", table)
    assert table.count("re-ranked, mixture") == table.count("re-ranked, matching") == 2
    assert table.count("  chance") == 2
    assert "matching head 98.5 % (chance 50 %, 256 pairs)" in table
    assert "! tied-scores: 2 queries <b>" in table


def test_the_card_says_what_was_dropped_and_recognised(result):
    content = RetrievalResult.read(result)
    content.settings.update({"coverage": "available", "k": None})
    content.data.update({"recognised": "MSRVTT full", "captions_per_video": [18, 20]})
    card = dict(content.card())
    assert card["test set"] == "shards (ids and number are those of MSRVTT full)"
    assert card["captions"] == "256; 18 to 20 per video"
    assert card["coverage"].startswith("available") and card["re-ranked"] == "no"


@pytest.fixture
def read(tmp_path):
    def read(content):
        (tmp_path / "retrieval.json").write_text(json.dumps(content))
        return RetrievalResult.read(tmp_path)

    return read


@pytest.mark.parametrize("scores", [{}, {"reranked": None}, {"dual+dsl": contents.METRICS}])
def test_what_is_written_is_read(read, tmp_path, scores):
    content = contents.retrieval() | scores
    result = read(content)
    assert result.scores.keys() == {"chance", *contents.KINDS} | scores.keys()
    path = result.write(tmp_path)
    assert json.loads(path.read_text()) == content and RetrievalResult.read(path) == result


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "no result of this version of `vmm eval retrieval`; run it again"),
        ({"schema": 1}, "no result of this version of `vmm eval retrieval`; run it again"),
        ({"schema": 2}, "lacks best, chance, command, .*; run `vmm eval retrieval` again"),
    ],
)
def test_an_older_file_or_one_of_another_kind_is_refused(read, content, said):
    with pytest.raises(ValueError, match=said):
        read(content)


def test_scores_stand_in_one_order_and_without_those_that_are_not_there(read):
    content = contents.retrieval()
    result = read(content)
    scores = {"dual+dsl": contents.METRICS, **result.scores, "mixed": None, "reranked": None}
    result = replace(result, scores=scores)
    assert list(result.kinds()) == ["dual", "vectors", "dual+dsl"]
    assert list(result.kinds(chance=True)) == ["dual", "vectors", "dual+dsl", "chance"]
    assert "dual encoder +dsl" in result.table() and "re-ranked, m" not in result.table()


def test_a_file_that_is_older_than_a_metric_lacks_it(read):
    content = contents.retrieval()
    del content["dual"]["t2v_recall_5"], content["dual"]["t2v_median_rank"]
    result = read(content)
    assert re.search(r"dual encoder +81\.2 \(.*\) +- +99\.0 +91\.8 +- +1\.5", result.table())
    assert comparison_rows([("a", result)])[1][2:5] == ["81.2", "-", "99.0"]


def test_several_results_side_by_side_end_with_chance(read):
    older = contents.retrieval() | {"direction": None}
    del older["vectors"], older["mixed"], older["settings"]["mixture"]
    a, b = read(contents.retrieval()), read(older)
    assert "Dual encoder: the mean" in a.table() and "Dual encoder: the mean" not in b.table()
    assert dict(a.card())["mixture"] == "similarity / 0.05 + 0.5 x matching logit"
    assert dict(b.card())["mixture"] == "none"
    header, *rows = comparison_rows([("a", a), ("b", b)])
    assert header[2:] == ["t2v R@1", "R@5", "R@10", "v2t R@1", "R@5", "R@10", "direction"]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("a", "dual encoder", "97.5"), ("", "one vector each", "97.0"),
        ("", "re-ranked, mixture, k=128", "99.5"), ("", "re-ranked, matching alone, k=128", "98.5"),
        ("b", "dual encoder", "-"), ("", "re-ranked, matching alone, k=128", "-"),
        ("chance", "", "50.0"),
    ]  # fmt: skip
    alone = comparison_rows([("b", b)])
    assert [row[:-1] for row in (header, *rows[4:])] == alone  # no column without a number


def test_what_was_not_measured_alike_is_named(read):
    a, b = read(contents.retrieval()), read(contents.retrieval())
    assert protocol_differences(a, b) == []
    b.data["videos"], b.settings["k"] = 3, 16
    assert protocol_differences(a, b) == ["videos: 256 and 3", "k: 128 and 16"]
    b.settings["k"] = None  # the dual encoders can still be compared
    assert protocol_differences(a, b) == ["videos: 256 and 3"]
