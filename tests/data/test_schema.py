import pytest

from vmm.data.schema import (
    captions_of,
    failure_of,
    media_member,
    parse_metadata,
    questions_of,
    split_member,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("000000012.mp4", ("000000012", "mp4")),
        ("clip_1.5s.mp4", ("clip_1.5s", "mp4")),
        ("clip_1.7s.mp4", ("clip_1.7s", "mp4")),
        ("folder.v2/a.b.JSON", ("folder.v2/a.b", "json")),
        ("a.mp4.txt", ("a.mp4", "txt")),
        ("a.parquet", None),
        ("folder.mp4/readme", None),
        ("mp4", None),
        (".mp4", None),
        ("folder/.mp4", None),
    ],
)
def test_member_names_split_at_the_last_dot(name, expected):
    assert split_member(name) == expected


@pytest.mark.parametrize(
    ("text", "metadata", "expected"),
    [
        (b" a dog \n", {"caption": "a cat"}, ["a dog"]),
        (b"  \n", {"caption": " a cat "}, ["a cat"]),
        (None, {"caption": ["a cat", "", 3, "a dog"]}, ["a cat", "a dog"]),
        (None, {"caption": None}, []),
        (None, {}, []),
        (b"caf\xe9", {}, ["caf\ufffd"]),
        # Several captions of which the text file repeats one, as video2dataset writes them.
        (b"a", {"caption": "a", "caption_1": "c", "caption_0": "b"}, ["a", "b", "c"]),
        (b"b", {"caption": "b", "caption_0": "b", "caption_1": "c"}, ["b", "c"]),
        (b"x", {"caption_0": "b", "caption_1": "c"}, ["x"]),
        (None, {f"caption_{i}": str(i) for i in range(20)}, [str(i) for i in range(20)]),
        (None, {"caption_1": "a", "caption_01": 3, "caption_0": None, "caption_": "b"}, ["a"]),
        (b"a", {"caption": ["a", "b", "b"]}, ["a", "b", "b"]),
    ],
)
def test_the_text_file_wins_unless_it_is_blank(text, metadata, expected):
    assert captions_of(text, metadata) == expected


@pytest.mark.parametrize("data", [None, b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_no_metadata(data):
    assert parse_metadata(data) == {}


def test_media_are_chosen_by_type():
    both = {"jpg", "mp4", "txt"}
    assert media_member(both, "video") == "mp4"
    assert media_member(both, "image") == "jpg"
    assert media_member({"txt"}, "video") is None


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"status": "success", "error_message": None}, ""),
        ({"status": "failed_to_download", "error_message": "404"}, "failed_to_download: 404"),
        ({"error_message": "x" * 999}, "x" * 200),
        ({"status": 3}, ""),
        ({}, ""),
    ],
)
def test_downloaders_say_why_they_failed(metadata, expected):
    assert failure_of(metadata) == expected


def asked(question, answer, **more):
    return {"id": "1", "metadata": {"question": question, "answer": answer, **more}}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (asked(" what? ", "a man"), [("1", "what?", ["a man"], "")]),
        (asked("what?", ["a", "b", "a", " "]), [("1", "what?", ["a", "b", "a"], "")]),
        (asked("what?", "a", question_type="who"), [("1", "what?", ["a"], "who")]),
        (asked("what?", 2), []),  # a multiple-choice question
        (asked("what?", None), []),
        (asked(" ", "a"), []),
        ({"id": "1", "metadata": None}, []),
        ("text", []),
    ],
)
def test_open_questions_of_a_sample(item, expected):
    assert questions_of({"items": [item]}) == expected


@pytest.mark.parametrize("items", [None, 3, "text", {}])
def test_metadata_without_items_ask_nothing(items):
    assert questions_of({"items": items}) == questions_of({}) == []
