import importlib
import json
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from eval import demo, demo_qa
from vmm.cli import GROUPS
from vmm.evaluation.common.command import read_steps


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("module", [demo, demo_qa])
def test_every_step_is_a_command_that_can_be_typed(root, module, quick):
    for command in module.steps(quick).values():
        program, *options = shlex.split(command)
        if program == "python":
            assert (root / f"{options[1].replace('.', '/')}.py").is_file()
        elif options[0] in GROUPS:
            group, name, *rest = options
            evaluation = importlib.import_module(GROUPS[group][name].main.partition(":")[0])
            if name in ("retrieval", "long-video-qa", "grounding"):
                evaluation._parser(name).parse_args(rest)
        else:
            assert (program, options[0]) == ("vmm", "fit")
            recipes = [file for flag, file in pairwise(options) if flag == "-c"]
            assert all(yaml.safe_load((root / file).read_text()) for file in recipes)
            assert ("recipes/overlays/debug.yaml" in recipes) == quick


def test_the_report_shows_every_run_and_result_of_the_steps():
    todo = demo.steps(quick=False)
    shown = todo["report"]
    for number in range(len(todo)):
        command = [*todo.values()][number]
        if "eval retrieval" in command:
            folder = command.split("--out ")[1].split()[0]
            assert f"={folder}'" in shown
    versions = [c.split("version ")[1].split()[0] for c in todo.values() if c.startswith("vmm fit")]
    assert all(f"={demo.RUNS}/{version}'" in shown for version in versions) and len(versions) == 4


def test_steps_are_run_in_order_by_this_python_and_timed(here, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    write = "import sys; open('seen', 'a').write(sys.argv[1])"
    todo = {name: f'python -c "{write}" {name}' for name in ("one", "two")}
    assert demo.run_steps(todo, here / "steps.json") == 0
    assert (here / "seen").read_text() == "onetwo" and "[2/2] two" in capsys.readouterr().out
    steps = read_steps(here / "steps.json")  # as the page wants them
    assert [(step["name"], step["command"]) for step in steps] == [*todo.items()]
    assert all(step["seconds"] >= 0 for step in steps)


def test_a_step_that_fails_ends_the_demo_with_its_status(here, capsys):
    todo = {"one": "python -c 0", "two": 'python -c "raise SystemExit(7)"', "three": "python -c 0"}
    assert demo.run_steps(todo, here / "steps.json") == 7
    assert "step 'two' failed with exit status 7" in capsys.readouterr().out
    assert [s["name"] for s in json.loads((here / "steps.json").read_text())] == ["one"]


def test_results_of_an_earlier_demo_do_not_pass_for_this_one_s(here, monkeypatch):
    old = [demo.OUT / "report.html", demo.RUNS / "stage2" / "old", Path("runs/mine/kept")]
    for path in old:
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.setattr(demo, "run_steps", lambda todo, record: 3)
    assert demo.main(["--quick"]) == 3
    assert [path.exists() for path in old] == [False, False, True]
