import logging
from types import SimpleNamespace

import pytest

from tests.models.bag_of_words import BagOfWords
from vmm.models.text_encoder import BertTextEncoder
from vmm.tasks.captions import say_of_captions


@pytest.fixture
def say(root, caplog):
    def said(max_words=32, first=True, encoder=None, **shards):
        name = str(root / "recipes/encoders/bert_demo")
        encoder = encoder or BertTextEncoder(8, name, pretrained=False, max_words=max_words)
        trainer = SimpleNamespace(is_global_zero=first, datamodule=SimpleNamespace(**shards))
        with caplog.at_level(logging.INFO, "vmm.tasks.captions"):
            say_of_captions(trainer, encoder)
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    return said


def test_cut_captions_are_told_before_training(say, demo_shards):
    shards = f"{demo_shards.folder}/train-*.tar"
    ((level, sentence),) = say(max_words=8, train_videos=shards)
    assert level == "WARNING"
    assert "48 of 48 captions (100.0%) are cut to max_words 8, after which" in sentence


def test_nothing_is_said_where_nothing_is_off_or_known(say, demo_shards):
    shards = f"{demo_shards.folder}/train-*.tar"
    assert say(train_videos=shards, train_images=None) == []
    assert say(max_words=8) == []  # a datamodule without shards
    assert say(max_words=8, train_videos="s3://bucket/{000..999}.tar") == []
    assert say(max_words=8, first=False, train_videos=shards) == []
    assert say(encoder=BagOfWords(8, max_words=3), train_videos=shards) == []


def test_all_corpora_are_looked_at(say, demo_shards):
    from vmm.data.corpora import Corpus

    named = {part: Corpus(f"{demo_shards.folder}/{part}-*.tar") for part in ("train", "val")}
    ((_, sentence),) = say(max_words=8, train_videos=named)
    assert "64 of 64 captions" in sentence
