from dataclasses import replace

import numpy as np
import pytest
import torch

from vmm.evaluation.common.labels import Truth
from vmm.evaluation.probe.lint import ProbeSubject, lint_probe
from vmm.evaluation.probe.readers import Reading


@pytest.fixture
def clean():
    torch.manual_seed(0)
    labels, asked = torch.arange(20) % 2, torch.tensor([0, 1, 0, 1])
    scores = torch.eye(2, dtype=torch.float64)[[0, 1, 1, 1]]
    return ProbeSubject(
        train=[Truth(f"t{i}", f"t{i}", source=f"video {i}") for i in range(20)],
        test=[Truth(f"x{i}", f"x{i}", source=f"film {i}") for i in range(4)],
        labels=labels,
        asked=asked,
        names=["tea", "milk"],
        vectors=torch.randn(20, 8).double(),
        seen=torch.randn(4, 8).double(),
        rows=torch.arange(4),
        readings={"linear": Reading(np.zeros((4, 2)), {"C": 1.0}, 90.0)},
        scores={"linear": scores},
        control=True,
        of_stage_1=False,
    )


def found(subject):
    return {finding.code: f"{finding.message} {finding.effect}" for finding in lint_probe(subject)}


def test_nothing_is_off_with_what_is_clean(clean):
    assert found(clean) == {}


def test_clips_of_one_video_in_both_parts(clean):
    leaked = [clean.test[0], clean.test[1]._replace(source="video 7"), *clean.test[2:]]
    said = found(replace(clean, test=leaked))["same-video"]
    assert "1 of 4 test clips" in said and "'video 7'" in said and "linear 66.7" in said
    nameless = [truth._replace(source=None) for truth in clean.train]
    none = [truth._replace(source=None) for truth in clean.test]
    assert found(replace(clean, train=nameless, test=none)) == {}


def test_the_same_recording_under_another_name(clean):
    seen = clean.seen.clone()
    seen[2] = clean.vectors[5] + 1e-6
    said = found(replace(clean, seen=seen))["same-features"]
    assert "1 of 4 test clips" in said and "'x2'" in said and "linear 100.0" in said
    unread = replace(clean, seen=seen[1:], rows=torch.tensor([1, 2, 3]))
    assert "'x2'" in found(unread)["same-features"]
    everything = found(replace(clean, seen=clean.vectors[:4]))["same-features"]
    assert "take other test clips" in everything


def test_too_few_clips(clean):
    labels = torch.tensor([1, 1, 1, 1] + [0] * 16)
    assert (
        "1 of 2 classes have fewer than 5 training clips, e.g. 'milk'"
        in (found(replace(clean, labels=labels))["few-clips"])
    )


def test_choices_and_fits_at_their_end(clean):
    reading = Reading(np.zeros((4, 2)), {"C": 1000.0}, 90.0, edge=True, converged=False)
    said = found(replace(clean, readings={"linear": reading}))
    assert "C 1000" in said["edge"] and "linear" in said["not-converged"]


def test_what_the_features_are(clean):
    said = found(replace(clean, control=False, of_stage_1=True))
    assert said.keys() == {"stage-1", "no-control"}
