from typing import get_args

import pytest
import torch

from vmm.data.collate import (
    CONTENTS,
    Content,
    Contents,
    Item,
    collate,
    content_of,
    draw_item,
    make_batch,
)
from vmm.data.collate import Sample as BatchSample
from vmm.data.faults import SampleError
from vmm.data.schema import RawSample
from vmm.data.shards import EvaluationSample
from vmm.data.transforms import ClipSettings

SETTINGS = ClipSettings(num_frames=2, image_size=16)
CLIP = torch.ones(2, 3, 16, 16)


def raw(**metadata):
    return RawSample("k", 0, "", b"", ["first", "second", "third"], metadata)


def evaluated(number, video=CLIP, **metadata):
    return EvaluationSample(f"k{number}", number, video, ["First", "second"], metadata, None)


def test_the_words_of_a_recipe_are_those_of_the_table():
    assert get_args(Content) == tuple(CONTENTS)


def test_training_draws_every_caption_and_evaluation_shows_the_first():
    generator = torch.Generator().manual_seed(0)
    drawn = {draw_item(raw(), CONTENTS["captions"], generator).text for _ in range(40)}
    assert drawn == {"first", "second", "third"}
    batch = collate([evaluated(0), evaluated(1)], SETTINGS, "sample", blank=True)
    assert batch["text"] == ["First", "First"] and batch["idx"].tolist() == [0, 1]
    batch = collate([evaluated(0), evaluated(1)], SETTINGS, "caption", blank=True)
    assert batch["idx"][0] == batch["idx"][1] > 1


def test_an_unreadable_video_is_grey_or_left_out():
    samples = [evaluated(0, None), evaluated(1)]
    shown = collate(samples, SETTINGS, "sample", blank=True)
    assert shown["key"] == ["k0", "k1"] and not shown["video"][0].any() and shown["video"][1].all()
    assert collate(samples, SETTINGS, "sample", blank=False)["key"] == ["k1"]
    empty = collate(samples[:1], SETTINGS, "sample", blank=False)
    assert empty["video"].shape == (0, 2, 3, 16, 16) and empty["idx"].dtype == torch.int64
    assert empty["text"] == empty["key"] == []


def test_a_sample_without_a_question_says_so():
    with pytest.raises(SampleError, match="no question: its JSON holds no question with an answer"):
        draw_item(raw(), CONTENTS["questions"], torch.Generator())


def test_a_new_content_is_a_function_and_a_line():
    """A class, and its number as a field of the batch."""

    def of(sample):
        classes = sample.metadata.get("classes", {})
        return [Item(name, {"label": number}) for name, number in classes.items()]

    new = Contents(of, "no label", "none", in_turn=True)
    classes = {"dog": 4, "cat": 7}
    item = draw_item(raw(classes=classes), new, torch.Generator().manual_seed(0))
    assert item.fields["label"] == classes[item.text]
    batch = make_batch([BatchSample(CLIP, item, 3, "k")], "video")
    assert batch["label"] == [classes[item.text]] and batch["text"] == [item.text]
    samples = [evaluated(0, classes=classes), evaluated(1), evaluated(3, classes=classes)]
    shown = collate(samples, SETTINGS, "sample", blank=True, content=new)
    assert shown["text"] == ["dog", "cat"] and shown["label"] == [4, 7]
    assert shown["idx"].tolist() == [0, 3] and len(shown["video"]) == 2
    with pytest.raises(SampleError, match="no label: none"):
        draw_item(raw(), new, torch.Generator())


def test_labels_are_those_of_the_json_or_of_a_field_of_it():
    items = [{"id": "a", "metadata": {"label": 3, "class": "run"}}]
    sample = evaluated(0, items=items, attributes={"motion": "up", "both": ["up", 4]})
    batch = collate([sample, evaluated(1)], SETTINGS, "sample", True, content_of("labels"))
    assert batch["labels"] == [[("run", 3)]] and batch["key"] == ["k0"]
    for field, labels in {"motion": [("up", None)], "both": [("up", None), (None, 4)]}.items():
        content = content_of("labels", f"attributes.{field}")
        assert draw_item(raw(**sample.metadata), content, torch.Generator()).fields == {
            "labels": labels
        }
    with pytest.raises(SampleError, match=r"no label: .* see data\.label_field"):
        draw_item(raw(**sample.metadata), content_of("labels", "attributes.x"), torch.Generator())
    with pytest.raises(ValueError, match="content to labels"):
        content_of("captions", "attributes.motion")
