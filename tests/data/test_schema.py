import pytest

from vmm.data.schema import (
    IMAGE_EXTENSIONS,
    UNREAD_EXTENSIONS,
    VIDEO_EXTENSIONS,
    captions_of,
    failure_of,
    is_leftover,
    labels_of,
    media_member,
    parse_metadata,
    questions_of,
    remedy,
    split_member,
    text_fault,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("000000012.mp4", ("000000012", "mp4")),
        ("clip_1.5s.mp4", ("clip_1.5s", "mp4")),
        ("clip_1.7s.mp4", ("clip_1.7s", "mp4")),
        ("folder.v2/a.b.JSON", ("folder.v2/a.b", "json")),
        ("a.mp4.txt", ("a.mp4", "txt")),
        ("a.TS", ("a", "ts")),
        ("a.m2ts", ("a", "m2ts")),
        ("a.wmv", ("a", "wmv")),
        ("a.tif", ("a", "tif")),
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
        (b"caf\xe9", {}, []),  # no UTF-8: nobody knows what it is
        (b"caf\xe9", {"caption": "a cafe"}, ["a cafe"]),
        ("a dog".encode("utf-16"), {"caption": "a cat"}, ["a dog"]),
        ("a dog".encode("utf-16-be"), {}, []),
        ("\ufeffa dog".encode("utf-16-be"), {}, ["a dog"]),
        ("a dog".encode("utf-8-sig"), {}, ["a dog"]),
        (b"a smile \xed\xa0\xbd!", {}, ["a smile \ufffd!"]),  # half a pair, as some write it
        ("one\u2028two\x85three".encode(), {}, ["one\u2028two\x85three"]),
        (b"\xe2\x80\x8b \xef\xbb\xbf\n", {"caption": "\0"}, []),  # invisible, so blank
        (None, {"caption": ["\u200d", "\u200ba cat\u200b"]}, ["\u200ba cat\u200b"]),
        ("\u3000\u00a0\u2003".encode(), {}, []),
        # Downloaders that were not told the caption's column keep it under its own name.
        (None, {"caption": None, "text": "a cat"}, ["a cat"]),
        (None, {"caption": " ", "TEXT": ["a cat", "a dog"]}, ["a cat", "a dog"]),
        (None, {"text": None, "sentence": "a cat"}, ["a cat"]),
        (None, {"caption": "a cat", "text": "an article"}, ["a cat"]),
        (None, {"caption_0": "a cat", "text": "an article"}, ["a cat"]),
        (b"a cat", {"text": "an article"}, ["a cat"]),
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ""),
        (b"", ""),
        ("caf\u00e9".encode(), ""),
        ("caf\u00e9".encode("utf-16"), ""),
        (b"caf\xe9", "not UTF-8"),
        ("a dog".encode("utf-16-le"), "NUL"),
        (b"\xff\xfea", "not UTF-16"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "NUL"),
    ],
)
def test_what_is_no_text_says_why(text, expected):
    assert expected in text_fault(text) and bool(expected) == bool(text_fault(text))


@pytest.mark.parametrize(
    "name",
    [
        "._a.mp4", "folder/._a.txt", "__MACOSX/a.mp4", "__MACOSX/folder/._a.mp4", "@eaDir/a.mp4",
        "videos/@eaDir/a.mp4/SYNOVIDEO_THUMB.jpg", ".DS_Store", "folder/Thumbs.db", "desktop.ini",
        "$RECYCLE.BIN/a.mp4", "#recycle/a.mp4", ".Trashes/501/a.mp4", "folder\\._a.mp4",
        ".AppleDouble/a.mp4", "@eaDir/",
    ],
)  # fmt: skip
def test_what_systems_leave_is_no_part_of_a_sample(name):
    assert is_leftover(name) and split_member(name) is None


@pytest.mark.parametrize(
    "name", ["a.mp4", "_a.mp4", ".a.mp4", "a._b.mp4", "MACOSX/a.mp4", "._x/y.mp4"]
)
def test_names_of_people_are_not_taken_for_what_systems_leave(name):
    assert not is_leftover(name) and split_member(name)


def test_halves_of_surrogate_pairs_become_the_sign_for_what_was_lost():
    whole = parse_metadata(rb'{"caption": "\ud83d\ude00", "text": "\\\\ud83d"}')
    assert whole == {"caption": "\U0001f600", "text": r"\\ud83d"}
    half = parse_metadata(rb'{"caption": "a \uD83D", "items": [{"id": "\udc00"}], "\udc00": 1}')
    assert half == {"caption": "a \ufffd", "items": [{"id": "\ufffd"}], "\ufffd": 1}
    assert captions_of(None, half) == ["a \ufffd"]
    assert parse_metadata(b'{"caption": "a \xed\xa0\xbd"}') == {"caption": "a \ufffd"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_metadata_may_carry_a_mark_of_their_encoding(encoding):
    assert parse_metadata('{"caption": "ä"}'.encode(encoding)) == {"caption": "ä"}


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


def test_every_extension_is_read_or_has_a_remedy_but_not_both():
    for kind, read in (("video", VIDEO_EXTENSIONS), ("image", IMAGE_EXTENSIONS)):
        unread = UNREAD_EXTENSIONS[kind]
        assert not set(read) & set(unread) and len(set(unread)) == len(unread)
        assert all(remedy(f"x.{name}", kind) is None for name in read)
        assert all("convert it" in remedy(f"x.{name.upper()}", kind) for name in unread)
    assert "`ffmpeg -i dir/a.b.mjpeg dir/a.b.mp4`" in remedy("dir/a.b.mjpeg")
    assert "`gunzip a.tar.gz`" in remedy("a.tar.gz") and remedy("a.gz") is remedy("mjpeg") is None


@pytest.mark.parametrize(
    ("metadata", "captions", "labels"),
    [
        ({"label": 3}, ["a cat"], [(None, 3)]),
        ({"label": "cat"}, [], [("cat", None)]),
        ({"label": ["cat", 4, "", None, True]}, [], [("cat", None), (None, 4)]),
        ({"label": float("nan")}, ["a cat"], []),
        ({}, ["a cat"], []),
        ({"items": [{"metadata": {"question": "what?", "label": 3}}]}, ["a cat"], []),
        ({"items": [{"metadata": {"label": 3}}]}, ["3"], [(None, 3)]),
        ({"items": [{"metadata": {"label": 3}}, {"metadata": {"label": 5, "class": "b"}}]},
         ["x", "y"], [(None, 3), ("b", 5)]),
        ({"items": [{"metadata": {"target": -1.5, "label": "l"}}, "odd", {}]}, [], [("l", -1.5)]),
    ],
)  # fmt: skip
def test_labels_of_a_sample(metadata, captions, labels):
    assert labels_of(metadata, captions) == labels


@pytest.mark.parametrize("number", [10**400, -(2**70), float("nan"), float("inf"), True, None, {}])
def test_what_is_no_number_is_no_label(number):
    assert labels_of({"label": number}, []) == []
    assert labels_of({"items": [{"metadata": {"label": number}}]}, []) == []
    assert len(labels_of({"label": [3, number]}, [])) == 1
