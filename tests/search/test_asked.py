from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from vmm.search.asked import Asked, read_queries
from vmm.search.find import Query


def written(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def test_a_sentence_in_each_line(tmp_path):
    path = written(tmp_path, "q.txt", "a red circle\n\n  two, with commas \n")
    assert read_queries(path) == ([Asked("1", "a red circle"), Asked("3", "two, with commas")], [])


def test_tables_with_ids_sentences_and_videos(tmp_path):
    expected = [
        Asked("x", "a red circle"),
        Asked("7", None, tmp_path / "a.mp4"),
        Asked("z", "b", Path("/v/b.mp4")),
    ]
    table = "id,text,video\nx,a red circle,\n7,,a.mp4\nz,b,/v/b.mp4\n"
    assert read_queries(written(tmp_path, "q.csv", table)) == (expected, [])
    lines = (
        '{"query_id": "x", "query": "a red circle"}\n{"query_id": 7, "video": "a.mp4"}\n'
        '{"query_id": "z", "query": "b", "video": "/v/b.mp4"}\n'
    )
    assert read_queries(written(tmp_path, "q.jsonl", lines)) == (expected, [])
    columns = {"caption": ["a", "b"]}
    parquet.write_table(pa.table(columns), tmp_path / "q.parquet")
    assert read_queries(tmp_path / "q.parquet")[0] == [Asked("1", "a"), Asked("2", "b")]


def test_rows_without_a_query_are_left_out_and_named(tmp_path):
    asked, odd = read_queries(written(tmp_path, "q.csv", "id,text\nx,\ny,b\n"))
    assert asked == [Asked("y", "b")]
    assert len(odd) == 1 and "q.csv, line 2: expected text in the field 'text' or a file" in odd[0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.txt", " \n\n", "holds no query; write a sentence in each line"),
        ("q.csv", "id,text\nx,\n", "holds no query: .*line 2: expected text"),
        ("q.csv", "id,text\nx,a\nx,b\n", "has the id 'x' twice"),
        ("q.json", "[1", "expected JSON"),
    ],
)
def test_files_that_ask_nothing(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_queries(written(tmp_path, name, text))
    with pytest.raises(ValueError, match="is not a file"):
        read_queries(tmp_path / "nothing.txt")


def test_a_query_keeps_filters_and_numbers():
    like = Query(text="any", top=3, folder="/v", after=2)
    video = Path("/v/b.mp4")
    assert Asked("1", None, video).query(like) == Query(clip=video, top=3, folder="/v", after=2)
