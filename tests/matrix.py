"""Tests with the oldest allowed, the locked and the newest versions, on every Python found.

    python -m tests.matrix                        # everything: hours
    python -m tests.matrix --short                # what .ci/run does: few environments, few tests
    python -m tests.matrix --python 3.13 --versions oldest

Supported Pythons are those of the classifiers in ``pyproject.toml``; one that this machine lacks is
named in the table. Environments stay in ``.matrix/``, and so does what each has printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".matrix"
HERE = "{}.{}".format(*sys.version_info)
VERSIONS = ("oldest", "locked", "newest")
ASSETS = ROOT / "requirements/assets.txt"
INSTALLING = threading.Lock()
"""An editable install writes into the checkout: one at a time."""


class Case(NamedTuple):
    """One environment."""

    python: str
    """Such as 3.12."""
    versions: str


@dataclass(frozen=True)
class Outcome:
    """One line of the table."""

    python: str
    versions: str
    result: str
    """``passed``, ``failed``, ``cannot be installed``, or ``no such Python here``."""
    summary: str
    seconds: int


def supported() -> list[str]:
    """Return the Pythons that pyproject.toml names, oldest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [re.search(r":: (3\.\d+)$", line) for line in project["classifiers"]]
    return [match[1] for match in found if match]


def find_python(version: str) -> Path | None:
    """Return the interpreter of a version: of this process, of pyenv, or on the PATH."""
    if version == HERE:
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    on_path = shutil.which(f"python{version}")
    candidates = [*sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)]
    candidates += [Path(on_path)] if on_path else []
    for path in candidates:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        asked = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if asked.stdout.strip() == version:  # a shim of pyenv may stand for a version not there
            return path
    return None


def short_cases(found: list[str]) -> list[Case]:
    """Choose both ends: the oldest Python with the oldest versions, the newest with the newest."""
    return [Case(found[0], "oldest"), Case(found[-1], "newest")]


def uv(*words: str | Path) -> None:
    """Run uv, which links what it has installed before instead of copying it.

    Raises:
        subprocess.CalledProcessError: With what it printed.
    """
    subprocess.run(
        [sys.executable, "-m", "uv", "--quiet", *words],
        cwd=ROOT,
        env=os.environ | {"UV_PYTHON_DOWNLOADS": "never"},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def install(case: Case, interpreter: Path) -> Path:
    """Make an environment and return its interpreter.

    Oldest are the lowest versions of what pyproject.toml names that have a wheel for this Python;
    what these need themselves is taken as new as they allow.
    """
    folder = FOLDER / f"{case.python}-{case.versions}"
    uv("venv", "--clear", "--python", interpreter, folder)
    python = folder / "bin/python"
    requirements = ROOT / "requirements/locked.txt"
    if case.versions != "locked":
        requirements = folder / "requirements.txt"
        rule = {"oldest": "lowest-direct", "newest": "highest"}[case.versions]
        uv(
            *("pip", "compile", "pyproject.toml", "--extra", "dev", "--resolution", rule),
            *("--python", python, "--only-binary", ":all:", "--output-file", requirements),
            *("--no-binary", "deepspeed"),  # of which there are no wheels
        )
    uv("pip", "install", "--python", python, "-r", requirements)
    uv("pip", "install", "--python", python, "--no-deps", "-r", ASSETS)
    uv("pip", "install", "--python", python, "--no-deps", "--no-build-isolation", "-e", ".")
    return python


def run(case: Case, short: bool) -> Outcome:
    """Install and test one environment."""
    start = time.monotonic()

    def outcome(result: str, summary: str) -> Outcome:
        return Outcome(*case, result, summary, round(time.monotonic() - start))

    interpreter = find_python(case.python)
    if interpreter is None:
        return outcome("no such Python here", "")
    try:
        with INSTALLING:
            python = install(case, interpreter)
    except subprocess.CalledProcessError as error:
        return outcome("cannot be installed", error.stdout.strip()[-2000:])
    log = FOLDER / f"{case.python}-{case.versions}.log"
    marked, files = "not gpu", [ROOT / "tests"]
    if short:  # to collect all others takes longer than these tests
        marked, every = "smoke and not gpu", sorted((ROOT / "tests").rglob("test_*.py"))
        files = [path for path in every if "mark.smoke" in path.read_text()]
    with log.open("w") as file:
        tests = subprocess.run(
            [python, "-m", "pytest", "-m", marked, "-q", "-p", "no:cacheprovider", *files],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    lines = log.read_text(errors="replace").strip().splitlines()
    if tests.returncode:
        sys.stdout.write("\n".join(lines[-60:]) + "\n")
    return outcome("failed" if tests.returncode else "passed", lines[-1] if lines else "")


def main(argv: list[str] | None = None) -> int:
    """Test and print a table, also written to ``.matrix/matrix.json``.

    Returns:
        0 if every environment that could be tried passed, else 1.
    """
    parser = argparse.ArgumentParser(prog="tests.matrix", description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="few environments, tests marked smoke")
    parser.add_argument("--python", action="append", choices=supported(), help="only this one")
    parser.add_argument("--versions", action="append", choices=VERSIONS, help="only these")
    options = parser.parse_args(argv)
    wanted = options.python or supported()
    missing = [python for python in wanted if find_python(python) is None]
    found = [python for python in wanted if python not in missing]
    if options.short:
        cases = short_cases(found) if found else []
    else:
        cases = [Case(p, v) for p in found for v in options.versions or VERSIONS]
    FOLDER.mkdir(exist_ok=True)
    outcomes = [Outcome(python, "all", "no such Python here", "", 0) for python in missing]
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(run, case, options.short) for case in cases]
        for _ in tqdm(as_completed(running), total=len(running), unit="environment"):
            pass
    outcomes += [future.result() for future in running]
    rows = [asdict(outcome) for outcome in outcomes]
    (FOLDER / "matrix.json").write_text(json.dumps(rows, indent=2) + "\n")
    for o in outcomes:
        line = f"{o.python:<6} {o.versions:<8} {o.result:<20} {o.seconds:>5} s  {o.summary[-80:]}"
        sys.stdout.write(line + "\n")
    tried = [o.result for o in outcomes if o.result != "no such Python here"]
    return int(not tried or any(result != "passed" for result in tried))


if __name__ == "__main__":
    sys.exit(main())
