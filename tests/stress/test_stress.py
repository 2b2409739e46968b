"""Short forms of the scripts in this folder; their full results are in ``results``."""

import json
import subprocess
import sys

import pytest

from tests.data.annotations.examples import EXAMPLES
from tests.stress.annotations import stress, stress_lists


def run(root, *arguments):
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_killed_loaders_go_on_with_the_same_samples_on_other_workers_and_ranks(root):
    result = run(root, "tests.stress.resume", "--kills", "1", "--seed", "7")
    assert result.returncode == 0, result.stderr[-3000:]
    assert '"kills": 6' in result.stdout and '"differences": 0' in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_goes_on_with_the_same_samples_and_weights(root, processes):
    kill = ["--kills", "1", "--batches", "12", "--seed", "3", "--to", str(processes)]
    result = run(root, "tests.stress.kills", *kill)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert '"kills": 1' in result.stdout and '"wrong": []' in result.stdout


@pytest.mark.slow
def test_kills_while_lists_are_made_leave_nothing_wrong(root):
    result = run(root, "tests.stress.lists", "--kills", "2", "--seed", "3")
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert '"kills": 2' in result.stdout and '"wrong": []' in result.stdout


@pytest.mark.slow
def test_damaged_weight_files_are_refused_or_whole(root):
    result = run(root, "tests.stress.checkpoints", "--mutants", "99", "--seed", "5")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert '"mutants": 99' in result.stdout and '"wrong": []' in result.stdout


@pytest.mark.slow
def test_memory_does_not_grow_over_epochs(root):
    result = run(root, "tests.stress.memory", "--epochs", "10", "--limit", "4")
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]


def test_damaged_annotations_are_read_or_refused_by_name(tmp_path):
    counts, failures = stress(EXAMPLES, 12, seed=5, folder=tmp_path)
    more, others = stress_lists(30, seed=5, folder=tmp_path)
    assert not failures + others, "\n".join(map(str, failures + others))
    counts |= more
    assert sum(count["read"] for count in counts.values()) > 100
    assert sum(count["refused"] for count in counts.values()) > 100


@pytest.mark.slow
def test_damaged_shards_are_read_or_told(root):
    result = run(root, "tests.stress.shards", "--mutants", "100", "--seed", "5")
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert '"failures": []' in result.stdout


@pytest.mark.slow
def test_a_served_encoder_under_load_answers_or_refuses(root):
    load = ["--minutes", "0.1", "--clients", "8", "--mutants", "20", "--small"]
    result = run(root, "tests.stress.serving", *load)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    outcome = json.loads(result.stdout.splitlines()[-1])
    assert outcome["wrong"] == [] and outcome["status at the end"] == 0
    assert outcome["statuses"]["video 200"] > 0 and outcome["statuses"]["text 200"] > 0


def test_damaged_media_of_every_kind_give_frames_or_a_decode_error(root):
    result = run(root, "tests.stress.media", "--mutants", "12", "--seed", "3")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    outcome = json.loads(result.stdout.splitlines()[-1])
    assert outcome["kinds"] >= 40 and outcome["crashes, hangs and mistakes"] == []
