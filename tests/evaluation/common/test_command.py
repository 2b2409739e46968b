import importlib
import logging
import subprocess
import sys
import typing
from dataclasses import fields

import pytest

from vmm.evaluation.common.command import new_parser, portable_command, run_command


@pytest.mark.parametrize(
    ("argument", "written"),
    [
        ("--run={here}/runs/a", "--run=runs/a"),
        ("{here}/x.tar", "x.tar"),
        ("/somewhere/else/x.tar", "x.tar"),
        ("data/[000..009].tar", "'data/[000..009].tar'"),
        ("--no-rerank", "--no-rerank"),
    ],
)
def test_the_command_is_written_without_paths_of_this_machine(
    tmp_path, monkeypatch, argument, written
):
    monkeypatch.chdir(tmp_path)
    for typed in ("vmm eval retrieval", "python -m eval.retrieval"):
        command = portable_command(typed, [argument.format(here=tmp_path)])
        assert command == f"{typed} {written}"


def words_of(kind):
    """The words of a Literal, alone or in a union."""
    kinds = (kind, *typing.get_args(kind))
    return {w for k in kinds if typing.get_origin(k) is typing.Literal for w in typing.get_args(k)}


EVALUATIONS = ["classification", "grounding", "long_video_qa", "open_qa", "probe", "retrieval"]


@pytest.mark.parametrize("name", EVALUATIONS)
def test_a_command_offers_what_its_evaluation_takes_from_python(name):
    parser = importlib.import_module(f"vmm.evaluation.{name}.command")._parser("vmm")
    taken = importlib.import_module(f"vmm.evaluation.{name}.options").Options
    defaults = {field.name: field.default for field in fields(taken)}
    offered = {action.dest: action for action in parser._actions if action.dest != "help"}
    offered.pop("no_rerank", None)  # is k=None
    if name in ("grounding", "long_video_qa"):
        del defaults["shards"]  # refused
    assert offered.keys() == defaults.keys()
    types = typing.get_type_hints(taken)
    for option, action in offered.items():
        words = words_of(types[option])
        assert not words or set(action.choices) == words, option
        if option not in ("device", "num_workers"):  # what suits a command
            assert action.default == defaults[option], option


def test_a_new_evaluation_needs_no_published_set(tmp_path):
    (tmp_path / "config.yaml").touch()
    seen = []
    parser = new_parser("vmm eval new", "A new one.", "a run")
    arguments = ["--run", str(tmp_path), "--device", "cpu"]
    assert run_command(parser, lambda *told: seen.append(told), arguments) == 0
    ((values, command),) = seen
    assert values["device"] == "cpu"
    assert command == f"vmm eval new --run {tmp_path.name} --device cpu"


def test_it_shows_its_own_messages_and_not_those_of_libraries(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.yaml").touch()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)

    def evaluate(*_):
        logging.getLogger("vmm.new").info("7 videos")
        logging.info("Parsing model identifier")  # as open_clip does

    parser = new_parser("vmm eval new", "A new one.", "a run")
    assert run_command(parser, evaluate, ["--run", str(tmp_path), "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert "7 videos" in said and "Parsing" not in said


def test_ctrl_c_while_torch_is_loaded_is_one_sentence(root, tmp_path):
    """Pressed on the first look at a module of torch, whose loading takes seconds."""
    for name in ("config.yaml", "x.tar"):
        (tmp_path / name).touch()
    words = ["eval", "retrieval", "--run", str(tmp_path), "--shards", str(tmp_path / "x.tar")]
    code = (
        "import os, signal, sys\n"
        "class Presser:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch.nn':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Presser())\n"
        "from vmm.cli import main\n"
        f"sys.exit(main({words!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert (
        done.stderr.startswith("\nvmm eval retrieval: stopped by Ctrl-C") and len(done.stderr) < 200
    )
