import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from vmm import __version__, doctor
from vmm.cli import GROUPS, Command, main
from vmm.runs import TASKS


def run(*args):
    return subprocess.run(
        [sys.executable, "-m", "vmm", *args], capture_output=True, text=True, check=False
    )


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys; from vmm.cli import main; main(['--help']); "
        "heavy = {'torch', 'lightning', 'numpy', 'transformers', 'open_clip'} & set(sys.modules); "
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    start = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - start < 1.0
    for command in (
        "fit",
        "validate",
        "test",
        "predict",
        "eval",
        "shards",
        "summary",
        "doctor",
        "export",
        "encode",
        "index",
        "search",
        "app",
        "import",
        "export-upstream",
    ):
        assert f"  {command} " in result.stdout


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vmm {__version__}\n"


def test_unknown_command_suggests_the_nearest(capsys):
    assert main(["fitt"]) == 2
    assert "did you mean 'fit'?" in capsys.readouterr().err


def test_commands_of_two_words_are_listed_and_suggested(capsys):
    for group, commands in GROUPS.items():
        assert main([group]) == 0 == main([group, "--help"])
        said = capsys.readouterr().out
        assert all(f"\n  {name} " in said for name in commands)
    assert main(["eval", "retrival"]) == 2
    assert "vmm eval: error: unknown command 'retrival'; did you mean 'retrieval'?" in (
        capsys.readouterr().err
    )


def test_help_comes_without_torch():
    code = (
        "import sys\n"
        "from vmm.cli import COMMANDS, GROUPS, TRAINER_COMMANDS, main\n"
        "grouped = [[g, name] for g, some in reversed(GROUPS.items()) for name in some]\n"
        "single = [[name] for name in (*TRAINER_COMMANDS, *COMMANDS, *GROUPS)]\n"
        "for words in [*grouped, *single]:\n"
        "    try: main([*words, '--help'])\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "    assert 'torch' not in sys.modules, words\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for group, commands in GROUPS.items():
        assert all(f"usage: vmm {group} {name} " in done.stdout for name in commands)


def test_mistakes_that_can_be_seen_at_once_are_told_without_torch(root, tmp_path):
    lines = [
        *("summary", "summary gone", "summary gone.yaml", "export gone out", "fit gone"),
        *(
            "export-upstream gone x.pth",
            "import x out --num-frames few",
            "export x out --frmat onnx",
        ),
        *("serve gone", "serve gone --port many"),
        *("eval retrieval --run gone --shards x.tar", "eval match-weight --run gone"),
        *(
            "eval classification --model clip:x --shards gone.tar",
            "encode x --out new",
            "encode x --out new --encoder gone",
        ),
    ]
    code = (
        "import sys\n"
        "from vmm.cli import main\n"
        f"for line in {lines!r}:\n"
        "    try: status = main(line.split())\n"
        "    except SystemExit as stop: status = stop.code\n"
        "    assert status == 2 and 'torch' not in sys.modules, line\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(lines)  # a sentence each
    assert not list(tmp_path.iterdir())


@pytest.mark.smoke
@pytest.mark.parametrize("asked", [None, "active"])
def test_threads_do_not_spin_while_they_wait_unless_asked(asked):
    code = """
import os, sys
from vmm.command_line import run_to_status

def run():
    print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)  # it would have been too late
    return 0

run_to_status("it", run)
"""
    mine = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    mine |= {"OMP_WAIT_POLICY": asked} if asked else {}
    done = subprocess.run([sys.executable, "-c", code], env=mine, capture_output=True, text=True)
    assert done.stdout == f"{asked or 'passive'} False\n"


def test_doctor_names_the_scan_backend_and_every_package():
    result = run("doctor", "--json")
    findings = {f["name"]: f for f in json.loads(result.stdout)}
    assert findings["torch"]["state"] == "ok"
    assert findings["selective scan"]["state"] == "ok"
    assert re.match("compiled for .+, run on ", findings["CPU kernels"]["detail"])
    assert findings["mamba_ssm"]["needed"] is False
    assert findings["decoding"]["state"] == "ok"
    assert re.match(r"PyAV [\d.]+ with FFmpeg .+: works", findings["decoding"]["detail"])
    assert platform.python_version() in findings["python"]["detail"]
    broken = [f for f in findings.values() if f["needed"] and f["state"] != "ok"]
    assert result.returncode == int(bool(broken))


def test_doctor_explains_mismatched_builds():
    from vmm.doctor import torchvision_pair

    advice = torchvision_pair("2.13.0+cpu", "0.28.0")
    assert "different builds" in advice and "open_clip" in advice
    assert "released together" in torchvision_pair("2.15.0", "0.27.0")


def test_doctor_names_a_local_build_that_breaks_torchvision(monkeypatch):
    version = importlib.metadata.version

    def versions(name):
        return "2.13.0+cpu" if name == "torch" else version(name)

    def checked(names):
        said = "operator torchvision::nms does not exist"
        states = {name: "broken" if "torchvision" in name else "ok" for name in names}
        return {name: [doctor.Finding(name, state, said)] for name, state in states.items()}

    monkeypatch.setattr(importlib.metadata, "version", versions)
    monkeypatch.setattr(doctor, "_checked", checked)
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["decoding"].state == "ok"
    pair = found["torchvision operators"]
    assert pair.state == "broken" and "torch 2.13.0+cpu and torchvision" in pair.detail
    assert "same index" in pair.detail


def shadowed(monkeypatch, folder):
    """Let processes look for modules in a folder first."""
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def test_doctor_sees_operators_of_torchvision_that_do_not_fit(tmp_path, monkeypatch):
    """They cannot be loaded then; here they are not there."""
    there = Path(find_spec("torchvision").origin).parent
    (tmp_path / "torchvision").mkdir()
    for file in there.glob("*.py"):
        (tmp_path / "torchvision" / file.name).symlink_to(file)
    name = "torchvision operators"
    assert doctor._checked([name]) == {name: [doctor.Finding(name, "ok", "fit torch")]}
    shadowed(monkeypatch, tmp_path)
    (found,) = doctor._checked([name])[name]
    assert found.state == "broken" and "operator torchvision::nms does not exist" in found.detail


def test_a_check_that_fails_or_crashes_costs_no_other(tmp_path, monkeypatch):
    places = {
        "torchvision": "raise RuntimeError('nms does not exist')",
        "open_clip": "import os; os.abort()",
    }
    for name, code in places.items():
        (tmp_path / f"{name}.py").write_text(f"print('noise')\n{code}\n")
    shadowed(monkeypatch, tmp_path)
    names = ["import torchvision", "import open_clip", "decoding"]
    found = doctor._checked(names)
    assert list(found) == names
    (pair,), (towers,), (decoding,) = found.values()
    assert pair == doctor.Finding(names[0], "broken", "RuntimeError: nms does not exist")
    assert towers.state == "broken" and "status -6" in towers.detail
    assert decoding.state == "ok" and "PyAV" in decoding.detail


def test_doctor_loads_neither_torchvision_nor_open_clip_whole(tmp_path, monkeypatch):
    """Either would double the seconds that it takes; ``--deep`` does."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules.update(dict.fromkeys(['torch._dynamo', 'transformers', 'timm']))"
    )
    shadowed(monkeypatch, tmp_path)
    states = {finding.name: finding.state for finding in doctor.examine()}
    assert {states[name] for name in ("torchvision operators", "decoding", "selective scan")} == {
        "ok"
    }
    monkeypatch.setattr("vmm.preflight.deep_checks", lambda recipe: [])
    whole = {finding.name: finding.state for finding in doctor._deep([])}
    assert whole == {"import torchvision": "broken", "import open_clip": "broken"}


def test_doctor_says_what_a_package_lacks(monkeypatch):
    assert doctor._requirements("open_clip_torch").state == "ok"
    wanted = ["torch>=1", "timm>=99", "no-such>=1; python_version > '3'", "neither; extra == 'x'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    found = doctor._requirements("open_clip_torch")
    assert found.state == "broken"
    assert found.detail == "timm>=99, no-such>=1 not there: pip install -U open_clip_torch"


def test_doctor_names_versions_that_are_too_old(monkeypatch):
    wanted = {"av": SpecifierSet(">=99"), "gradio": SpecifierSet(">=99"), "torch": SpecifierSet()}
    monkeypatch.setattr(doctor, "wanted_versions", lambda: wanted)
    monkeypatch.setattr(doctor, "_wanted_python", lambda: ">=9.1")
    old = doctor._package("av", "video decoding")
    assert (old.state, old.needed) == ("broken", True)
    assert old.detail.endswith('vmm needs >=99: pip install "av>=99"')
    assert doctor._package("gradio", "the page").needed is False
    assert doctor._package("torch", "everything").state == "ok"
    assert doctor._python().state == "broken" and "vmm needs >=9.1" in doctor._python().detail


@pytest.mark.parametrize("installed", [(), ("jsonargparse",)])
def test_doctor_asks_for_no_training_where_nobody_trains(monkeypatch, installed):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(doctor, "find_spec", lambda name: name if name in installed else None)
    missing = [doctor._package(name, "it") for name in ("lightning", "torchvision", "av")]
    assert [one.state for one in missing] == ["missing"] * 3
    assert [one.needed for one in missing] == [bool(installed), bool(installed), True]


def test_doctor_knows_what_the_package_asks_for():
    doctor.wanted_versions.cache_clear()
    assert "2.9" in str(doctor.wanted_versions()["torch"])
    assert doctor._python().state == "ok"


def test_doctor_sees_a_decoder_that_does_not_work(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import av; av.open = lambda *a, **k: a.b")
    shadowed(monkeypatch, tmp_path)
    (found,) = doctor._checked(["decoding"])["decoding"]
    assert found.state == "broken" and "no attribute 'b'" in found.detail


@pytest.mark.parametrize(
    ("option", "named", "meant"),
    [
        ("--trainer.max_epoch=3", "max_epoch", None),
        ("--model.init_args.proj_dimm=3", "proj_dimm", "proj_dim"),
        ("--model.init_args.warmup_step=3", "warmup_step", "warmup_steps"),
        ("--model.init_args.video_encoder.init_args.dept=3", "dept", "depth"),
        ("--data.init_args.batchsize=3", "batchsize", "batch_size"),
    ],
)
def test_misspelt_key_on_the_command_line(root, capsys, option, named, meant):
    assert main(["fit", "-c", str(root / "recipes/stage2_vtt.yaml"), option]) == 2
    message = capsys.readouterr().err
    assert named in message and len(message.splitlines()) == 1
    if meant:
        assert f"did you mean {meant!r}" in message


def test_misspelt_key_in_a_recipe(root, tmp_path, capsys):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("trainer:\n  max_epoch: 3\n")
    recipes = ["-c", str(root / "recipes/stage2_vtt.yaml"), "-c", str(overlay)]
    assert main(["fit", *recipes]) == 2
    message = capsys.readouterr().err
    assert "trainer.max_epoch" in message and "did you mean 'trainer.max_epochs'" in message
    assert len(message.splitlines()) == 1


def test_missing_training_extra_is_named():
    code = (
        "import sys; sys.modules['lightning'] = None; from vmm.cli import main;"
        "main(['fit', 'stage2_vtt.yaml'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "vmm-video[train]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_a_package_that_an_evaluation_needs_is_named(monkeypatch, capsys):
    for name, said in (("jinja2", 'pip install "vmm-video[train]"'), ("nobodys", None)):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(GROUPS["eval"], "report", Command("a page", f"{name}:main"))
        if said is None:  # not ours: a defect, not a mistake
            with pytest.raises(ModuleNotFoundError):
                main(["eval", "report"])
        else:
            assert main(["eval", "report"]) == 2
            error = capsys.readouterr().err
            assert error.startswith("vmm: error: `vmm eval report` needs the package 'jinja2'")
            assert said in error


@pytest.mark.parametrize("task", [path for path in TASKS if path.startswith("vmm.tasks.")])
def test_every_setting_of_a_task_is_explained_with_its_type(task, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model.help", task])
    page = re.split(r"\n  --model\.", capsys.readouterr().out.partition("Help for")[2])[1:]
    settings = {entry.split()[0]: " ".join(entry.split()[2:]) for entry in page}
    assert {"video_encoder", "optimizer", "weight_decay", "warmup_steps", "init_from"} <= set(
        settings
    )
    assert "shared" not in settings
    for name, text in settings.items():
        text = re.sub(r"^--model\.\S+\+ \S+ ", "", text)  # the form that adds to a list
        if not name.endswith(".help"):
            assert re.match(r"[A-Z`].+ \((required, )?type: ", text), name
