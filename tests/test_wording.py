import zlib

import pytest

from vmm.wording import check_captions, clean_caption

KNOWN = {"a", "red", "circle", "moves", "to", "the", "left", "right"}
UNKNOWN = 1


def tokenize(texts):
    """Known words are a token, others one for each letter; digits are beyond it."""

    def pieces(word):
        if any(c.isdigit() for c in word):
            return [UNKNOWN]
        return [zlib.crc32(piece.encode()) for piece in ([word] if word in KNOWN else word)]

    return [[2, *(t for word in text.lower().split() for t in pieces(word)), 3] for text in texts]


def test_captions_that_are_cut_are_counted_and_what_they_lose():
    captions = [
        "a red circle moves to the left",
        "a red circle moves to the right",
        "a red circle moves to",
        "a red circle",
        "a red circle moves to the left",
    ]
    check = check_captions(captions, tokenize, max_words=8)
    assert (check.captions, check.cut, check.merged, check.longest) == (5, 3, 2, 9)
    assert check.cut_examples == captions[:2]
    (said,) = check.said().values()
    assert "3 of 5 captions (60.0%) are cut to max_words 8, after which 2 are no longer" in said
    assert "raise text_encoder.init_args.max_words (the longest has 9)" in said
    assert check_captions(captions, tokenize, max_words=9).said() == {}
    # The two lefts are one caption, not two that became one.
    assert check_captions(captions[::2], tokenize, max_words=8).merged == 0


def test_words_that_are_spelled_out_or_unknown_are_counted_as_often_as_they_come():
    captions = ["A red guitar, a red dog", "a red guitar", "a 4x4 moves"]
    check = check_captions(captions, tokenize, 99, UNKNOWN)
    assert (check.words, check.spelled, check.unknown) == (12, 3, 1)
    assert check.spelled_examples == {"guitar": 6, "dog": 3}
    assert check.unknown_examples == ["4x4"]
    assert check.lettered_examples == ["guitar", "dog"]
    signs = check_captions(["小猫"], tokenize, 99)  # each of which means something
    assert (signs.words, signs.spelled, signs.lettered_examples) == (2, 0, [])
    said = check.said()
    assert (
        "3 of 12 words (25.0%) are spelled out in pieces, e.g. 'guitar' (6" in said["spelled-words"]
    )
    assert "1 of 12 words (8.3%) are unknown" in said["unknown-words"]
    assert all("minilm.yaml" in sentence for sentence in said.values())
    assert check.said(little=False).keys() == {"spelled-words"}  # 8 % is usual


def test_no_captions_no_faults():
    check = check_captions([], tokenize, 8)
    assert (check.captions, check.words, check.longest) == (0, 0, 0) and check.said() == {}
    assert check_captions(["", " "], tokenize, 8).said() == {}


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("A red, RED circle.", "a red red circle"),
        ('it\'s "fun"! (#1: really?) *;~', "its fun 1 really"),
        ("black-and-white  and/or\n\tcolour ", "black and white and or colour"),
        ("<PERSON> waves", "person waves"),
    ],
)
def test_captions_are_cleaned_as_published(caption, cleaned):
    assert clean_caption(caption) == cleaned


def test_a_word_without_an_end_is_shown_by_its_beginning():
    letters = lambda texts: [[0, *map(ord, t.replace(" ", "")), 0] for t in texts]  # noqa: E731
    check = check_captions(["x" * 5000], letters, 9)
    assert all(len(word) < 60 for word in (*check.spelled_examples, *check.lettered_examples))
    assert check.lettered_examples == ["x" * 40 + "..."]
