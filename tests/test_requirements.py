"""The locked versions are ones that pyproject.toml allows, and the matrix covers its Pythons."""

import re
import subprocess
import tomllib

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import matrix

PLATFORMS = [("linux", "Linux"), ("darwin", "Darwin"), ("win32", "Windows")]


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def locked(root):
    """Name -> requirements of requirements/locked.txt, each with its hashes."""
    found = {}
    text = (root / "requirements/locked.txt").read_text()
    for entry in re.split(r"\n(?=\S)", text):
        if entry.startswith("#"):
            continue
        first, *hashes = entry.split("\\\n")
        requirement = Requirement(first.strip())
        found.setdefault(requirement.name, []).append((requirement, hashes))
    return found


def installed_by_make(project):
    """What `.[dev]` asks for, with the extras that it names itself."""
    extras, seen, wanted = ["dev"], set(), list(project["dependencies"])
    while extras:
        extra = extras.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for line in project["optional-dependencies"][extra]:
            if line.startswith("vmm-video["):
                extras += Requirement(line).extras
            else:
                wanted.append(line)
    return [Requirement(line) for line in wanted]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_requirement_is_locked_within_its_bounds_on_every_python(project, locked, platform):
    requirements = installed_by_make(project)
    assert len(requirements) > 25
    for python in matrix.supported():
        environment = default_environment() | {
            "python_version": python,
            "python_full_version": f"{python}.1",
            "sys_platform": platform[0],
            "platform_system": platform[1],
        }
        for wanted in requirements:
            if wanted.marker is not None and not wanted.marker.evaluate(environment):
                continue
            pins = [
                pin
                for pin, _ in locked[canonicalize_name(wanted.name)]
                if pin.marker is None or pin.marker.evaluate(environment)
            ]
            assert len(pins) == 1, f"{wanted} on Python {python}: {pins or 'not locked'}"
            (version,) = pins[0].specifier
            assert version.operator == "=="
            assert wanted.specifier.contains(version.version), f"{pins[0]} is not {wanted}"


def test_every_locked_file_has_a_hash(locked):
    assert len(locked) > 100
    for pins in locked.values():
        for pin, hashes in pins:
            assert hashes and all("--hash=sha256:" in line for line in hashes), pin


def test_nothing_in_the_locks_names_a_place(root):
    for path in (root / "requirements").iterdir():
        text = path.read_text()
        assert "://" not in text and "--index" not in text and "/etc" not in text, path


def test_short_takes_both_ends():
    assert matrix.short_cases(["3.11", "3.12", "3.13"]) == [("3.11", "oldest"), ("3.13", "newest")]


def test_a_missing_python_is_named_and_a_failed_environment_fails(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(matrix, "FOLDER", tmp_path)
    monkeypatch.setattr(matrix, "supported", lambda: ["3.11", "3.12", "3.99"])
    monkeypatch.setattr(matrix, "find_python", lambda v: None if v == "3.99" else tmp_path / v)

    program = tmp_path / "python"  # stands for the tests of an environment
    program.write_text("#!/bin/sh\necho 3 passed\n")
    program.chmod(0o755)

    def install(case, interpreter):
        if case == ("3.12", "newest"):
            raise subprocess.CalledProcessError(1, "uv", output="no wheel of it")
        return program

    monkeypatch.setattr(matrix, "install", install)
    assert matrix.main(["--versions", "locked"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"3\.99 +all +no such Python here", output)
    assert re.search(r"3\.12 +locked +passed +\d+ s +3 passed", output)
    assert matrix.main(["--versions", "newest"]) == 1
    assert re.search(
        r"3\.12 +newest +cannot be installed .*no wheel of it", capsys.readouterr().out
    )


def test_a_shim_that_stands_for_another_version_is_not_taken(monkeypatch, tmp_path):
    shim = tmp_path / "python3.98"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.98: command not found' >&2; exit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert matrix.find_python("3.98") is None
    shim.write_text("#!/bin/sh\necho 3.98\n")
    assert matrix.find_python("3.98") == shim
