from vmm.evaluation.common.findings import Finding, findings_text, texts_lost
from vmm.wording import check_captions


def test_findings_are_listed_with_what_they_do():
    two = [Finding("a", "found this", "does that"), Finding("b", "and this", "and that")]
    assert findings_text(two).splitlines() == [
        "! a: found this", "    does that", "! b: and this", "    and that",
    ]  # fmt: skip
    assert findings_text([]) == "nothing is off"


def test_what_a_text_encoder_cuts_is_told_with_share_and_examples():
    check = check_captions(["a b c", "a b d", "a"], lambda texts: [t.split() for t in texts], 2)
    (told,) = texts_lost(check, "too low")
    assert (told.code, told.effect) == ("cut-captions", "too low")
    said = "2 of 3 captions (66.7%) are cut to max_words 2, e.g. 'a b c'; 'a b d'; raise"
    assert told.message.startswith(said)
    assert texts_lost(None, "too low") == []


def test_words_in_pieces_do_not_make_texts_the_same():
    spelled = check_captions(["ab cd"], lambda texts: [["<", *text, ">"] for text in texts], 9)
    (told,) = texts_lost(spelled, "become one")
    assert told.code == "spelled-words" and told.effect != "become one"
