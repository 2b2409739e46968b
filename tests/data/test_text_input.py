import json

import pytest

from vmm.data.text_input import (
    clean_json,
    clean_text,
    decode_text,
    read_text,
    split_lines,
)

NOT_LINE_ENDS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"


def test_half_a_pair_becomes_one_sign_and_a_pair_its_character():
    assert clean_text("a\ud83db") == "a\ufffdb"
    assert clean_text("\ude00\ud83d") == "\ufffd\ufffd"
    assert clean_text("a\ud83d\ude00b") == "a😀b"
    whole = "plain, é 視 😀"
    assert clean_text(whole) is whole


@pytest.mark.parametrize(
    ("value", "halves"),
    [
        ("\ud83d", 1),
        ("a\udc00b\udfff", 2),
        ("\\ud83d", 0),
        ("\ud83d\ud83d\ude00", 1),
        ("\\\\\udabc", 1),
        ("é \\", 0),
    ],
)
def test_json_is_cleaned_before_it_is_parsed(value, halves):
    text = json.dumps({value: [value, "\\ud800"]})
    cleaned, number = clean_json(text)
    assert json.loads(cleaned) == {clean_text(value): [clean_text(value), "\\ud800"]}
    assert number == 2 * halves
    assert clean_json(text.replace("\\ud", "\\uD"))[1] == number


def test_no_escape_is_counted_twice_or_missed():
    cleaned, number = clean_json(r'"\ud83d\ud83d\ude00\udfff\\ud83d"')
    assert (cleaned, number) == (r'"\ufffd\ud83d\ude00\ufffd\\ud83d"', 2)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark", "utf-32", "utf-32-be-mark"]
)
def test_every_unicode_encoding_with_a_mark_is_read(tmp_path, encoding):
    text = "id,caption\r\nä,視 😀\r\n"
    name = encoding.removesuffix("-mark")
    data = ("\ufeff" * encoding.endswith("-mark") + text).encode(name)
    (tmp_path / "a.csv").write_bytes(data)
    assert read_text(tmp_path / "a.csv") == text


def test_halves_that_were_written_one_by_one_are_put_together():
    assert (
        decode_text("a😀".encode("utf-16-le", "surrogatepass").decode("utf-16-le").encode())
        == "a😀"
    )
    assert decode_text("\ud83d\ude00 \ud83d".encode("utf-8", "surrogatepass")) == "😀 \ufffd"
    utf_16 = "x\ud83d".encode("utf-16-le", "surrogatepass")
    assert decode_text(b"\xff\xfe" + utf_16) == "x\ufffd"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"caf\xe9", "is not UTF-8 .* at byte 3.*iconv -f WINDOWS-1252"),
        (b"\xff\xfea", "is not UTF-16"),
        ("a,b".encode("utf-16-le"), "NUL at character 1.*UTF-16 without"),
        (b"a\nb\0", "NUL at character 3"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path, data, message):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        read_text(tmp_path / "a.txt")
    assert str(tmp_path / "a.txt") in str(caught.value)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"a\.txt cannot be read: No such file"):
        read_text(tmp_path / "a.txt")


def test_lines_end_where_the_file_ends_them(tmp_path):
    assert split_lines("a\nb\r\nc") == split_lines("a\nb\nc\n") == ["a", "b", "c"]
    assert split_lines("a\rb\r") == ["a", "b"]
    assert split_lines("a\rb\n\nc\n") == ["a\rb", "", "c"]
    assert split_lines("") == [] and split_lines("\n") == [""]
    (tmp_path / "a.txt").write_text(f"x{NOT_LINE_ENDS}y\nz\n", encoding="utf-8", newline="")
    assert split_lines(read_text(tmp_path / "a.txt")) == [f"x{NOT_LINE_ENDS}y", "z"]
