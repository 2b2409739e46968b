"""The notebooks are run from their first cell to their last, with a few clips and two steps."""

import os
import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.export.runs import write_run
from vmm.export.command import main

TINY = {
    "train_and_look": {
        **{"TRAIN": 8, "VALIDATION": 4, "TEST": 4, "STILLS": 4},
        **{"STEPS": 2, "BATCH": 4},
    },
    "search_your_videos": {
        **{"ENCODER": "encoder", "VIDEOS": "videos", "QUESTION": "a red circle moves left"},
        **{"WINDOW": 1, "STRIDE": 0.5},
    },
}


def notebook(root, name):
    return nbformat.read(root / f"docs/notebooks/{name}.ipynb", as_version=4)


def run(root, name, folder, monkeypatch):
    """Run a notebook with its numbers made small; give what its cells printed and drew."""
    book = notebook(root, name)
    (parameters,) = (cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
    names = {}
    exec(parameters.source, names)
    assert set(TINY[name]) == set(names) - {"__builtins__"}
    parameters.source = "\n".join(f"{key} = {value!r}" for key, value in TINY[name].items())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    client = NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute()
    outputs = [out for cell in book.cells for out in cell.get("outputs", [])]
    text = "".join(out.text for out in outputs if out.get("name") == "stdout")
    warned = "".join(out.text for out in outputs if out.get("name") == "stderr")
    assert "Traceback" not in warned and "No artists" not in warned  # a chart without a curve
    assert "IProgress" not in warned
    assert not re.search(r"\d\.\d{7}", text), "numbers have more digits than anybody reads"
    pictures = [out for out in outputs if "image/png" in out.get("data", {})]
    return text, len(pictures)


@pytest.mark.slow
def test_train_and_look(root, tmp_path, monkeypatch):
    text, pictures = run(root, "train_and_look", tmp_path, monkeypatch)
    assert "text-to-video" in text and "better than the clip backwards in" in text
    assert pictures == 3 + 1 + 1  # clips, curves, similarities
    assert list(tmp_path.glob("runs/stage2_vtt/version_*/**/retrieval.json"))
    assert (tmp_path / "runs/notebook_encoder/config.json").is_file()


@pytest.mark.slow
def test_search_your_videos(root, tmp_path, demo_shards, monkeypatch):
    write_run(tmp_path / "run", seed=0)
    assert main([str(tmp_path / "run"), str(tmp_path / "encoder")]) == 0
    (tmp_path / "data").mkdir()
    (tmp_path / "data/demo").symlink_to(demo_shards.folder)
    text, pictures = run(root, "search_your_videos", tmp_path, monkeypatch)
    found = [line for line in text.splitlines() if ".mp4" in line]
    assert len(found) == 5 + 5 + 3 and "16 files in videos" in text
    assert found[-3].startswith("1.00  000000000.mp4"), "a video finds itself first"
    assert pictures == 2  # moments, and one video over time


@pytest.mark.parametrize("name", TINY)
def test_they_are_kept_without_what_they_said(root, name):
    for cell in notebook(root, name).cells:
        assert not cell.get("outputs") and not cell.get("execution_count"), cell.source


def test_all_of_them_are_run(root):
    assert {path.stem for path in (root / "docs/notebooks").glob("*.ipynb")} == set(TINY)
