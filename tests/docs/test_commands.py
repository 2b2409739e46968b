"""Every command and every piece of Python on the pages is run, or marked with a reason."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections import Counter

import pytest

from tests.docs.snippets import OWN_TESTS, REASONS, all_blocks
from vmm import cli
from vmm.recipe_files import PACKAGED
from vmm.shards.demo.synthesize import ClipArguments, plan

NOT_RUN = {"hub": 18, "gpu": 4, "own files": 25, "install": 2, "minutes": 2, "server": 14}
"""Commands and pieces of Python that are marked, by their reason."""
RECIPE = re.compile(r"(?:-c |init_args\.video_encoder )(\S+\.yaml)")


def command_words(line):
    """Cut what starts vmm on many devices off, and what comes after it."""
    words = shlex.split(line.partition("||")[0])
    return words[words.index("vmm") :] if "vmm" in words else []


@pytest.mark.slow
def test_everything_runs_in_the_order_of_the_pages(root, demo_shards, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/demo").symlink_to(demo_shards.folder)
    result = subprocess.run(
        [sys.executable, "-m", "tests.docs.walk", str(root)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"{result.stdout[-3000:]}{result.stderr[-3000:]}"
    runs = [
        block for block in all_blocks(root) if block.kind in ("sh", "python") and not block.mark
    ]
    listed = {line for block in runs if block.kind == "sh" for line in block.commands}
    assert f"ran {len(listed)} commands" in result.stdout and len(listed) > 30
    assert sum(block.kind == "python" for block in runs) > 6
    assert list(tmp_path.glob("runs/**/embeddings.safetensors"))
    assert list(tmp_path.glob("**/retrieval.json"))


def test_what_is_not_run_has_a_known_reason_and_is_counted(root):
    count = Counter()
    for block in all_blocks(root):
        if block.mark:
            assert block.mark in REASONS, f"{block.page}: {block.mark!r} is no known reason"
            assert block.kind in ("sh", "python"), f"{block.page}: a mark before {block.kind!r}"
            count[block.mark] += len(block.commands) if block.kind == "sh" else 1
    assert dict(count) == NOT_RUN


def test_no_command_hides_in_a_block_that_nobody_looks_at(root):
    for block in all_blocks(root):
        assert block.kind in ("sh", "python", "yaml", "text"), f"{block.page}: {block.kind!r}"
        if block.kind in ("yaml", "text"):
            hidden = re.search(r"^(vmm|pip|python|make|from|import) ", block.text, re.MULTILINE)
            assert hidden is None, f"{block.page}: mark this as sh or python: {hidden[0]}"
    for page, test in OWN_TESTS.items():
        assert not (root / page).exists() or (root / test).exists()


def test_commands_that_are_not_run_name_recipes_and_commands_that_exist(root):
    seen = 0
    for block in all_blocks(root):
        written = re.findall(r"^vmm init .*-o (\S+)", block.text, re.MULTILINE)
        for line in block.commands if block.kind == "sh" else ():
            for name in {*RECIPE.findall(line)} - {*written}:
                assert (PACKAGED / name).is_file(), f"{block.page}: there is no {name}"
                seen += 1
            words = command_words(line)[1:]
            if words and words[0] in cli.GROUPS:
                assert words[1] in cli.GROUPS[words[0]], line
            elif words:
                assert words[0] in cli.COMMANDS | cli.TRAINER_COMMANDS, line
    assert seen > 20


def test_commands_that_are_not_run_have_options_that_exist(root):
    marked = [
        command_words(line)[1:]
        for block in all_blocks(root)
        if block.mark and block.kind == "sh"
        for line in block.commands
    ]
    commands = {}
    for words in filter(None, marked):
        if words[0] not in cli.TRAINER_COMMANDS:
            size = 2 if words[0] in cli.GROUPS else 1
            options = {word for word in words if word.startswith("--")}
            commands.setdefault(tuple(words[:size]), set()).update(options)
    assert len(commands) >= 7
    for command, options in commands.items():
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
            cli.main([*command, "--help"])
        known = set(re.findall(r"--[a-z][\w-]*", out.getvalue()))
        assert options <= known, f"vmm {' '.join(command)} has no {options - known}"


def test_what_the_pages_search_for_is_in_the_clips_of_the_demo(root):
    captions = [job.scene.caption for job in plan(ClipArguments())["test"]]
    asked = {
        shlex.split(line)[3]
        for block in all_blocks(root)
        if block.kind == "sh" and not block.mark
        for line in block.commands
        if line.startswith("vmm search ")
    }
    assert asked
    for text in asked:
        assert sum(caption.startswith(text) for caption in captions) == 1, text


def test_the_pages_link_only_to_what_is_there_from_the_readme(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert len(links) > 15
    for link in links:
        assert (root / link).is_file(), link
    assert len(text.splitlines()) < 100  # one page
