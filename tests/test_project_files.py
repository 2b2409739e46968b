"""Files beside the code that nothing here runs: container, hooks, citation, templates."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch

import pytest
import yaml

from vmm import cli
from vmm.version import __version__

PREPARE = (
    "from setuptools import build_meta; print(build_meta.prepare_metadata_for_build_wheel('out'))"
)


@pytest.fixture(scope="module")
def steps(root):
    """(instruction, rest of the line) of the Dockerfile, continued lines joined."""
    lines = re.sub(r"\\\n\s*", " ", (root / "Dockerfile").read_text()).splitlines()
    return [line.split(" ", 1) for line in lines if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def copied(steps):
    return [words.split() for instruction, words in steps if instruction == "COPY"]


def test_the_container_copies_what_the_build_needs(steps, root, tmp_path, project):
    assert steps[0][0] == "FROM" and {"ENTRYPOINT", "USER"} <= {name for name, _ in steps}
    kept = [
        line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    for *sources, target in copied(steps):
        for source in sources:
            assert any(fnmatch(source, pattern) for pattern in kept), source
            place = tmp_path / target / (source if len(sources) > 1 else "")
            if (root / source).is_dir():
                unbuilt = shutil.ignore_patterns("__pycache__")
                shutil.copytree(root / source, place, symlinks=True, ignore=unbuilt)
            else:
                shutil.copy(root / source, place)
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PREPARE], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "vmm/recipes/stage2_vtt.yaml").is_file()
    tag = dict(steps)["FROM"].removeprefix("python:").removesuffix("-slim")
    assert f"Programming Language :: Python :: {tag}" in project["classifiers"]


def test_its_commands_parse_and_name_what_there_is(steps, project):
    ran = [words for name, words in steps if name == "RUN"]
    for words in ran:
        done = subprocess.run(["bash", "-n", "-c", words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    commands = [shlex.split(part) for words in ran for part in words.split("&&")]
    (installed,) = (words[-1] for words in commands if words[-1].startswith("."))
    assert set(installed[2:-1].split(",")) <= set(project["optional-dependencies"])
    ours = [words for words in commands if words[0] == "vmm"]
    assert ours and all(words[1] in cli.COMMANDS for words in ours)
    entry, after = (yaml.safe_load(dict(steps)[name]) for name in ("ENTRYPOINT", "CMD"))
    assert entry == ["vmm"] and cli.main(after) == 0


@pytest.mark.parametrize(("given", "words"), [("", []), ("ADDRESS", ["--index-url", "ADDRESS"])])
def test_torch_comes_from_another_index_only_where_one_is_named(steps, given, words):
    (line,) = (words for name, words in steps if name == "RUN" and "TORCH_INDEX" in words)
    echo = f"TORCH_INDEX={given!r}; printf '%s\n' {line.partition(' install ')[2]}"
    said = subprocess.run(["bash", "-c", echo], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["--no-cache-dir", *words, "torch"]


def test_hooks_run_what_the_makefile_checks(root):
    makefile = (root / "Makefile").read_text()
    (local,) = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local" and len(local["hooks"]) == 2
    for hook in local["hooks"]:
        program, verb, option = hook["entry"].split()
        assert program == ".venv/bin/ruff" and option == "--force-exclude"
        assert f"$(BIN)/ruff {verb}" in makefile and hook["language"] == "system"


def test_the_citation_is_of_this_version(root, project):
    cited = yaml.safe_load((root / "CITATION.cff").read_text())
    assert cited["version"] == __version__ == project["version"]
    assert cited["license"] == project["license"] and cited["cff-version"] == "1.2.0"
    (paper,) = cited["references"]
    assert all({"family-names", "given-names"} <= set(author) for author in paper["authors"])
    assert "2403.06977" in paper["identifiers"][0]["value"]


def test_issue_templates_are_forms(root):
    forms = sorted((root / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert [path.stem for path in forms] == ["config", "defect", "wish"]
    for path in forms[1:]:
        form = yaml.safe_load(path.read_text())
        assert form["name"] and form["description"]
        ids = [field["id"] for field in form["body"]]
        assert len(set(ids)) == len(ids) > 1
        assert all(field["attributes"]["label"] for field in form["body"])
        for command in re.findall(r"`vmm (\w+)", path.read_text()):
            assert command in cli.COMMANDS
