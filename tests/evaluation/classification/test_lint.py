"""Each mistake is planted and found, and nothing is found where nothing is wrong."""

from dataclasses import replace

import pytest
import torch

from vmm.data.views import Views
from vmm.evaluation.classification.lint import ClassSubject, lint_classes, lint_samples
from vmm.evaluation.common.class_protocols import CLASS_PROTOCOLS, ClassProtocol
from vmm.evaluation.common.labels import Classes, Truth

SET = ClassProtocol("Toys", "breakfast", ("test",), 4, 4, 3, size=80)
NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def clean():
    labels = torch.arange(80) % 4
    scores = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
    scores[torch.arange(80), labels] += 2
    truths = [Truth(f"{i}", f"v/{i}.mp4", NAMES[i % 4], i % 4) for i in range(80)]
    classes = Classes(list(NAMES), "x", labels)
    return ClassSubject(SET, truths, classes, 4, Views(4, 3), scores, True)


def codes(subject):
    return {finding.code for finding in lint_classes(subject)}


def test_nothing_is_found_in_a_clean_result(clean):
    assert codes(clean) == set()
    assert codes(replace(clean, protocol=None, views=Views())) == set()


def test_the_lists_size_and_the_papers_are_both_known(clean):
    for name, sizes in {
        "lvu-year": (143, 141),
        "breakfast": (355, 410),
        "coin": (2797, 2796),
    }.items():
        protocol = CLASS_PROTOCOLS[name]
        for size, found in [(size, set()) for size in sizes] + [(165, {"size"})]:
            truths = [Truth(f"{i}", f"{i}") for i in range(size)]
            seen = lint_samples(protocol, truths, Views())
            assert {finding.code for finding in seen} == found, (name, size)
    assert (
        "143 in the lists and 141 in the paper"
        in lint_samples(CLASS_PROTOCOLS["lvu-year"], [Truth("a", "a")], Views())[0].message
    )


def test_frames_of_another_rule(clean):
    rules = {"": set(), "random_finetune": set(), "random": {"frames"}}
    for sampling, found in rules.items():
        assert codes(replace(clean, sampling=sampling)) == found
    ssv2 = clean.protocol._replace(sampling=CLASS_PROTOCOLS["ssv2"].sampling)
    assert codes(replace(clean, protocol=ssv2, sampling="random_finetune")) == {"frames"}
    assert codes(replace(clean, protocol=ssv2, sampling="random_ssv2")) == set()


def test_a_bad_model_is_not_a_wrong_list(clean):
    noise = torch.randn(80, 4, generator=torch.Generator().manual_seed(5))
    assert "class-order" not in codes(replace(clean, scores=noise))
    constant = torch.zeros(80, 4)
    constant[:, 2] = 1
    assert "class-order" not in codes(replace(clean, scores=constant))


def test_classes_in_another_order(clean):
    shifted = clean.scores.roll(1, 1)
    found = [f for f in lint_classes(replace(clean, scores=shifted)) if f.code == "class-order"]
    assert len(found) == 1 and "another order than the checkpoint's" in found[0].effect
    # Prompts have no order.
    assert codes(replace(clean, scores=shifted, numbered_by_model=False)) == set()


def test_numbers_that_contradict_the_names(clean):
    truths = [t._replace(name=NAMES[(t.label + 1) % 4]) for t in clean.truths]
    assert codes(replace(clean, truths=truths)) == {"class-order"}


@pytest.mark.parametrize("outputs", [3, 5])
def test_a_list_of_another_length(clean, outputs):
    scores = torch.cat([clean.scores, clean.scores - 9], 1)[:, :outputs]
    found = codes(replace(clean, outputs=outputs, scores=scores))
    assert "class-count" in found and ("label-range" in found) == (outputs == 3)


def test_fewer_classes_than_the_set_has(clean):
    protocol = SET._replace(classes=10)
    assert codes(replace(clean, protocol=protocol)) == {"class-count"}


def test_numbers_from_one(clean):
    classes = clean.classes._replace(labels=clean.classes.labels + 1, names=["-", *NAMES])
    truths = [t._replace(label=t.label + 1) for t in clean.truths]
    found = lint_classes(replace(clean, classes=classes, truths=truths))
    assert any("begin at 1" in f.message for f in found if f.code == "label-range")


def test_unknown_classes(clean):
    classes = clean.classes._replace(
        labels=clean.classes.labels.index_fill(0, torch.tensor([3]), -1)
    )
    truths = list(clean.truths)
    truths[3] = truths[3]._replace(name="tea", label=None)
    found = lint_classes(replace(clean, classes=classes, truths=truths))
    assert [f.code for f in found] == ["unknown-class"] and "'tea'" in found[0].message


def test_a_sample_twice_and_equal_base_names(clean):
    truths = list(clean.truths)
    truths[1] = truths[1]._replace(media=truths[0].media)
    assert codes(replace(clean, truths=truths)) == {"sample-twice"}
    truths[1] = truths[1]._replace(media="other/0.mp4")
    found = lint_classes(replace(clean, truths=truths))
    assert [f.code for f in found] == ["base-names"] and "79 videos" in found[0].effect


def test_missing_views_and_samples(clean):
    assert codes(replace(clean, views=Views(1, 3))) == {"views"}
    assert codes(replace(clean, protocol=SET._replace(size=81))) == {"size"}


def test_ties(clean):
    assert "ties" in codes(replace(clean, scores=torch.zeros(80, 4)))


def test_numbers_to_predict_have_no_classes():
    protocol = CLASS_PROTOCOLS["lvu-view-count"]
    truths = [Truth(f"{i}", f"{i}", target=0.5) for i in range(126)]
    assert lint_samples(protocol, truths, Views(4, 3)) == []
    assert [f.code for f in lint_samples(protocol, truths[1:], Views(4, 3))] == ["size"]
