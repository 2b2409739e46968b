"""Text as files really hold it: marks, encodings, separators, and what is no text at all."""

import gzip
import json
import sqlite3

import pytest

from tests.data.annotations.examples import EXAMPLES
from vmm.data.annotations.registry import read_annotations, read_ids

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("mark", SEPARATORS)
def test_only_line_ends_end_lines(tmp_path, mark):
    text = f"one{mark}two"
    row = json.dumps({"video": "a.mp4", "caption": text}, ensure_ascii=False)
    for name, content in (("a.jsonl", f"{row}\n"), ("a.csv", f"video,caption\na.mp4,{text}\n")):
        (item,) = read_annotations(write(tmp_path, name, content))
        assert item.captions == [text]
    table = write(tmp_path, "LSMDC.csv", f"1_a\t0\t1\t0\t1\t{text}\n")
    assert [item.captions for item in read_annotations(table, "lsmdc")] == [[text]]
    assert list(read_ids(write(tmp_path, "ids.txt", f"{text}\nb\n"))) == [text, "b"]


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_half_a_character_is_replaced_and_counted(tmp_path, caplog, ensure_ascii):
    rows = [
        {"video": "a.mp4", "caption": "cut \ud83d"},
        {"video": "b.mp4", "caption": "😀 \\ud83d"},
    ]
    text = json.dumps(rows, ensure_ascii=ensure_ascii)
    path = write(tmp_path, "a.json", text.encode("utf-8", "surrogatepass"))
    items = read_annotations(path)
    assert [item.captions for item in items] == [["cut \ufffd"], ["😀 \\ud83d"]]
    assert ("has half of a character" in caplog.text and "in 1 places" in caplog.text) or (
        not ensure_ascii
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_encoding_with_a_mark_and_every_line_end(tmp_path, encoding, end):
    table = f'video,caption{end}a.mp4,"ä, 視"{end}b.mp4,c{end}'
    items = read_annotations(write(tmp_path, "a.csv", table.encode(encoding)))
    assert [item.captions for item in items] == [["ä, 視"], ["c"]]
    rows = [json.dumps({"video": f"{n}.mp4", "caption": n}) for n in "ab"]
    items = read_annotations(write(tmp_path, "a.jsonl", (end.join(rows) + end).encode(encoding)))
    assert [item.captions for item in items] == [["a"], ["b"]]


def test_tables_as_spreadsheets_write_them(tmp_path):
    text = 'sep=;\r\nvideo;caption;;\r\na.mp4;"one; two";;\r\n;;;\r\nb.mp4;three;;\r\n'
    items = read_annotations(write(tmp_path, "a.csv", text))
    assert [(item.media, item.captions) for item in items] == [
        ("a.mp4", ["one; two"]), ("b.mp4", ["three"]),
    ]  # fmt: skip


def test_a_very_large_cell_is_read(tmp_path):
    text = f"video,caption\na.mp4,{'x' * 300_000}\n"
    assert len(read_annotations(write(tmp_path, "a.csv", text))[0].captions[0]) == 300_000


def test_extensions_in_capitals(tmp_path):
    items = read_annotations(write(tmp_path, "A.CSV", "video,caption\na.mp4,x\n"))
    assert items[0].captions == ["x"]


def test_whole_numbers_that_a_table_made_floating(tmp_path):
    text = '[{"video": 7.0, "caption": "x"}, {"video": 8, "caption": "y"}]'
    assert [item.media for item in read_annotations(write(tmp_path, "a.json", text))] == ["7", "8"]


def test_nan_is_a_missing_value(tmp_path):
    text = '[{"video": "a", "caption": "x", "start": NaN, "end": NaN, "fps": Infinity}]'
    (item,) = read_annotations(write(tmp_path, "a.json", text))
    assert (item.start, item.end, item.metadata) == (None, None, {})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "video,caption,video\nx,a,y\n", "every column once; its header names 'video'"),
        ("a.json", '[{"video": "x", "video": "y", "caption": "a"}]', "'video' stands for two"),
        ("a.jsonl", '{"video": "x", "caption": "a", "caption": "b"}\n', "line 1: .*'caption'"),
        ("a.csv", 'video,caption\nx,"a\ny,b\n', "line 3: unexpected end.*close it"),
        ("a.csv", 'video,caption\nx,"a"b\n', "line 2: "),
        ("a.json", b'[{"video": "x", "caption": "a\0b"}]', "there is a NUL at character"),
        ("a.csv", "video,caption\nx,a\n".encode("utf-16-le"), "NUL.*UTF-16 without"),
        ("a.csv", "video,caption\nx,caf\xe9\n".encode("latin-1"), "is not UTF-8"),
        ("a.json", b"PK\x03\x04rest", "is a ZIP archive or an Excel file"),
        ("a.csv", gzip.compress(b"video,caption\n", mtime=0), "compressed with gzip; unpack"),
        ("a.json", "version https://git-lfs.github.com/spec/v1\noid 1\n", "a Git LFS pointer"),
        ("a.parquet", "version https://git-lfs.github.com/spec/v1\noid 1\n", "a Git LFS pointer"),
        ("a.pkl", "<!DOCTYPE html><html>", "a web page, not the file itself"),
        ("a.json", "\n<html>Not found</html>", "a web page, not the file itself"),
        ("a.db", b"PAR1", r"is Parquet; give it the extension \.parquet"),
        ("a.json", b"SQLite format 3\0", r"is SQLite; give it the extension \.db"),
    ],
)
def test_what_is_no_annotation_file_says_what_it_is(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as caught:
        read_annotations(path, "captions")
    assert str(path) in str(caught.value)


def test_a_name_that_stands_twice_for_one_value_is_no_doubt(tmp_path):
    text = '[{"video": "x", "video": "x", "caption": "a"}]'
    assert len(read_annotations(write(tmp_path, "a.json", text))) == 1


def test_a_database_may_hold_pictures(tmp_path):
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("CREATE TABLE annos (image, caption, thumbnail BLOB)")
    connection.execute("INSERT INTO annos VALUES ('a.jpg', 'x', X'FFD8')")
    connection.commit()
    connection.close()
    (item,) = read_annotations(tmp_path / "a.db")
    json.dumps(item.metadata)
    assert item.captions == ["x"] and "thumbnail" not in item.metadata


def test_a_damaged_database_is_refused_by_name(tmp_path):
    path = EXAMPLES["vindlu sqlite"].write(tmp_path)
    path.write_bytes(path.read_bytes().replace(b", image,", b", im\xffge,", 1))
    with pytest.raises(ValueError, match="expected SQLite with a table `annos`") as caught:
        read_annotations(path, "captions")
    assert str(path) in str(caught.value)


def test_a_row_that_is_no_record_is_no_odd_row(tmp_path):
    content = [*EXAMPLES["vindlu json"].files["msrvtt_ret_train9k.json"], 7]
    with pytest.raises(ValueError, match="item 3: expected a record with named fields, not int"):
        read_annotations(write(tmp_path, "a.json", json.dumps(content)))


@pytest.mark.parametrize("value", ["1_0", True, "nan", 10**400, "1e999"])
def test_numbers_that_are_none(tmp_path, value):
    row = {"video": "a", "caption": "x", "start": value}
    with pytest.raises(ValueError, match="a number in the field 'start'"):
        read_annotations(write(tmp_path, "a.json", json.dumps([row])))
