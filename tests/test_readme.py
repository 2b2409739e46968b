"""Every command of the README is executed, shrunk to two steps on a few clips."""

import os
import re
import shlex
import subprocess
import sys

import pytest

DEBUG = "-c recipes/overlays/debug.yaml"
NOT_HERE = {
    "make demo": "tests/integration/test_demo.py runs the same steps",
    "make demo-qa": "tests/integration/test_demo.py runs the same steps",
    "make demo-classes": "tests/integration/test_demo.py runs the same steps",
    "make ablations": "tests/evaluation/ablation",
    "make test": "this is it",
    'pip install "vmm-video[train]"': "the environment of these tests",
}


def commands(root):
    text = (root / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def examples(root):
    return re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)


def run(root, folder, *words):
    """Call Python there, and give what it said."""
    result = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"{words}\n{result.stdout[-2000:]}{result.stderr[-2000:]}"
    return result.stdout


@pytest.mark.slow
def test_every_command_works_in_order(root, demo_shards, tmp_path):
    for name in ("recipes", "eval", "data_prep"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/demo").symlink_to(demo_shards.folder)
    listed = commands(root)
    assert len(listed) > len(NOT_HERE) + 5 and set(NOT_HERE) <= set(listed)
    for command in listed:
        if command in NOT_HERE:
            continue
        words = shlex.split(command)
        if words[0] == "vmm":
            words = ["python", "-m", *words]
            if words[3] in ("fit", "validate", "predict"):
                words[6:6] = shlex.split(DEBUG)
        if "data_prep.synthesize" in words:
            words += ["--train", "48", "--val", "16", "--test", "16", "--images", "16"]
        assert words[0] == "python", f"the README has a command this test cannot run: {command}"
        run(root, tmp_path, *words[1:])
    (evaluation,) = (code for code in examples(root) if "evaluate(" in code)
    assert "text-to-video" in run(root, tmp_path, "-c", evaluation)
    assert list(tmp_path.glob("runs/**/embeddings.safetensors"))
    assert list(tmp_path.glob("**/retrieval.json"))


def test_python_examples_give_the_shapes_they_name(root):
    blocks = [code for code in examples(root) if "evaluate(" not in code]
    assert len(blocks) == 2
    space = {}
    for code in blocks:
        *statements, last = code.strip().splitlines()
        exec("\n".join(statements), space)
        expression, shapes = last.split("#")
        assert str(tuple(tuple(x) for x in eval(expression, space)))[1:-1] == shapes.strip()
