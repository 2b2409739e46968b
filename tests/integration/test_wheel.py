"""The wheel alone is the whole product: built, unpacked and walked through in an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
import yaml

from tests.shards import clips

WALK = """
import io, json, sys
from contextlib import redirect_stdout
from vmm.cli import main
import vmm

said = {"vmm": vmm.__file__}
for line in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()) as out:
        try:
            status = main(line.split())
        except SystemExit as stop:
            status = stop.code
    said[line] = [status, out.getvalue()]
said["files"] = [str(getattr(m, "__file__", "")) for m in sys.modules.values()]
print(json.dumps(said))
"""


def build(root, folder, links=True):
    """Make a folder as pip would of the wheel; nothing may ask the network."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    for name in ("vmm", "recipes", "eval", "data_prep"):
        unbuilt = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / name, source / name, symlinks=True, ignore=unbuilt)
    if not links:  # as Git does on Windows
        (source / "vmm/recipes").unlink()
        (source / "vmm/recipes").write_text("../recipes")
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "importable" not in done.stderr  # data that setuptools takes for packages
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "installed")
    shutil.rmtree(source)
    return folder / "installed"


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    return build(root, tmp_path_factory.mktemp("wheel"))


def test_a_clone_without_links_gives_the_same_files(wheel, root, tmp_path):
    other = build(root, tmp_path, links=False)
    files = [sorted(p.relative_to(x) for p in x.rglob("*.*")) for x in (wheel, other)]
    assert files[0] == files[1] and "vmm/recipes/stage2_vtt.yaml" in map(str, files[0])


def test_it_holds_vmm_and_nothing_that_is_only_for_the_checkout(wheel, root):
    tops = {path.name for path in wheel.iterdir()}
    assert "vmm" in tops and len(tops) == 2  # and what says which version of what it is
    (entry,) = wheel.glob("*.dist-info/entry_points.txt")
    assert "vmm = vmm.__main__:main" in entry.read_text()
    for kind in ("*.py", "*.j2", "*.typed"):
        ours = {path.relative_to(root / "vmm") for path in (root / "vmm").rglob(kind)}
        assert ours == {path.relative_to(wheel / "vmm") for path in (wheel / "vmm").rglob(kind)}
    recipes = {path.relative_to(root / "recipes") for path in (root / "recipes").rglob("*.*")}
    found = wheel / "vmm/recipes"
    assert recipes == {path.relative_to(found) for path in found.rglob("*.*")}
    assert not found.is_symlink()


@pytest.mark.slow
def test_a_walk_through_it_in_an_empty_folder(wheel, root, tmp_path):
    for number in range(2):
        clips.write_clip(tmp_path / f"videos/{number}.mp4", [number] * 8)
    (tmp_path / "list.csv").write_text("file,caption\n0.mp4,a dark clip\n1.mp4,a bright clip\n")
    lines = [
        "--help",
        "eval",
        "eval retrieval --help",
        "eval probe --help",
        "shards make list.csv videos -o shards --workers 0",
        "shards inspect shards/*.tar -o look --workers 0 --tokenizer recipes/encoders/bert_demo",
        "shards demo --out data/demo --train 4 --val 2 --test 2 --images 2 --frames 4 --workers 1",
        "eval compare shards shards",
        "fit stage2_vtt.yaml overlays/ema.yaml --print_config",
    ]
    done = subprocess.run(
        [sys.executable, "-c", WALK, json.dumps(lines)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(wheel), "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said.pop("vmm") == str(wheel / "vmm/__init__.py")
    ours = [file for file in said.pop("files") if file.startswith(str(root))]
    assert not [file for file in ours if "site-packages" not in file]
    failed = {line: status for line, (status, _) in said.items() if status != 0}
    assert failed == {"eval compare shards shards": 2}
    assert "as a result of `vmm eval retrieval`" in done.stderr
    assert "2 of 2 samples" in said[lines[4]][1] and "2 captions" in said[lines[5]][1]
    assert (tmp_path / "look/index.html").is_file()
    recipe = yaml.safe_load(said[lines[8]][1])
    assert (tmp_path / "data/demo/test-000000.tar").is_file()
    encoder = recipe["model"]["init_args"]["video_encoder"]
    assert encoder["class_path"].endswith("VideoMamba") and recipe["ema"]["decay"] == 0.999
