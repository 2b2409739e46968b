"""The guide from a folder of clips to a model, run as it stands on clips of real cameras."""

import json
import re
import shlex

import pytest

from tests.guides.camera import write_clips
from tests.starting.conftest import small_clip  # noqa: F401
from vmm.cli import main
from vmm.data.annotations.tables import CAPTION_FIELDS, CLASS_FIELDS, MEDIA_FIELDS
from vmm.data.shards import ShardSet


def run(command):
    words = shlex.split(command)
    assert words[0] == "vmm" and main(words[1:]) == 0, command


@pytest.fixture
def guide(root):
    return (root / "docs/guides/own_clips.md").read_text()


@pytest.mark.slow
def test_every_command_of_the_guide_works_as_it_stands(
    guide, small_clip, tmp_path, monkeypatch, capfd  # noqa: F811
):  # fmt: skip
    """The CLIP that it fetches is a tiny one with random weights here, so numbers are chance."""
    monkeypatch.chdir(tmp_path)
    assert write_clips(tmp_path) == 40
    commands = [line for block in re.findall(r"```sh\n(.*?)```", guide, re.S)
                for line in block.splitlines()]  # fmt: skip
    said = {}
    for command in commands:
        run(command)
        said[command] = capfd.readouterr().out
    (made, *_), (compared,) = (
        [text for command, text in said.items() if name in command]
        for name in ("shards make", "eval compare")
    )
    assert "train: 23 clips of 5 film groups" in made and "test: 7 clips of 2 film groups" in made
    assert "before" in compared and "after" in compared
    films = [_column(f"shards/{part}", "film") for part in ("train", "validation", "test")]
    assert sum(map(len, films)) == len(set().union(*films)) == 8
    (init,) = (
        text for command, text in said.items() if "init" in command and "own.yaml" in command
    )
    printed = [line.strip() for line in init.splitlines() if line.startswith("  vmm")]
    known = [line.replace(" clips ", " FOLDER ") for line in commands]
    known += [re.sub('".*', '"WHAT TO FIND"', line) for line in commands]
    assert len(printed) == 7 and not set(printed) - set(known), "init says what the guide says"
    found = next(text for command, text in said.items() if "vmm search" in command)
    assert len(re.findall(r"clips/\w+\.mp4", found)) == 3
    result = json.loads((tmp_path / "runs/own/version_0/after/retrieval.json").read_text())
    assert result["reranked"] is None
    assert (tmp_path / "runs/own/version_0/after/report.html").is_file()


def _column(shards, name):
    own = ShardSet(shards, "video")
    samples = (own.read(*own.locate(place)) for place in range(len(own)))
    return {item["metadata"][name] for sample in samples for item in sample.metadata["items"]}


def test_the_guide_names_every_column_that_is_known(guide):
    rows = re.findall(r"^\| (?:the file|the caption|or the class) \| (.*?) \|", guide, re.M)
    named = [tuple(re.findall(r"`(\w+)`", row)) for row in rows]
    assert named == [MEDIA_FIELDS, CAPTION_FIELDS, CLASS_FIELDS]
