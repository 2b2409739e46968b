"""The vocabulary of one's own captions has their words, in whatever language."""

import pytest

from vmm.models.text_encoder import BertTextEncoder
from vmm.recipe_files import PACKAGED
from vmm.starting.words import write_words


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("Bicycles near a café", ["bicycles", "near", "a", "cafe"]),
        ("Fahrräder überholen, groß", ["fahrrader", "uberholen", "groß"]),
        ('a taxi-sign, "TAXI"', ["a", "taxi", "sign", "taxi"]),
        ("赤い車", ["赤", "い", "車"]),
        ("50% of it_all", ["50", "%", "of", "it", "_", "all"]),
    ],
)
def test_no_word_of_the_captions_is_spelled_out(tmp_path, caption, words):
    sizes = PACKAGED / "encoders/bert_demo"
    assert write_words(tmp_path / "own", [caption], sizes, 48) == len(set(words))
    encoder = BertTextEncoder(8, str(tmp_path / "own"), fusion_layer=2, max_words=48)
    ids = encoder.whole_tokens([caption])[0][1:-1]
    assert encoder.tokenizer.convert_ids_to_tokens(ids) == words
    check = encoder.check_captions([caption])
    assert check.spelled == check.unknown == 0
