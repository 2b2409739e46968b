"""The whole demo with a few clips and two training steps each, in a folder of its own."""

import json
import os
import shlex
import subprocess
import sys
from importlib import import_module

import pytest

from eval import demo, demo_classes
from vmm import cli

STEPS = 9


@pytest.fixture(scope="module", name="demo")
def run_demo(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("recipes", "eval", "data_prep"):
        (folder / name).symlink_to(root / name)
    result = subprocess.run(
        [sys.executable, "-m", "eval.demo", "--quick"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return folder, result.stdout


@pytest.mark.slow
def test_every_step_ran_and_was_timed(demo):
    folder, output = demo
    steps = json.loads((folder / "demo/steps.json").read_text())
    assert len(steps) == STEPS and all(step["seconds"] > 0 for step in steps)
    assert f"[{STEPS}/{STEPS}] report" in output


@pytest.mark.slow
def test_stages_hand_their_weights_on(demo):
    import torch

    folder, _ = demo

    def weights(run):
        path = folder / "runs/demo" / run / "checkpoints/last.ckpt"
        return torch.load(path, weights_only=True)["state_dict"]

    stage1, stage2 = weights("stage1"), weights("stage2")
    key = "model.video_encoder.layers.0.mixer.in_proj.weight"
    moved = (stage2[key] - stage1[key]).abs().max()
    assert 0 < moved < 0.02  # two warm-up steps away from where stage 1 ended
    assert not any(name.startswith("teacher.") for name in stage1)


@pytest.mark.slow
def test_results_have_both_scores_and_all_controls(demo):
    folder, _ = demo
    results = {
        name: json.loads((folder / "demo" / name / "retrieval.json").read_text())
        for name in ("videomamba", "reversed", "frame_only")
    }
    text = json.dumps(results)
    for metric in ("t2v_recall_1", "v2t_recall_10", "t2v_median_rank"):
        assert text.count(metric) >= 6  # dual and re-ranked, three results
    assert all((folder / "demo" / name / "retrieval.png").stat().st_size for name in results)


@pytest.mark.slow
def test_report_is_one_page_without_the_network(demo):
    folder, _ = demo
    page = (folder / "demo/report.html").read_text()
    assert "frame-only" in page and "frames reversed" in page
    assert "data:image/png;base64," in page
    assert 'src="http' not in page and "<script" not in page


@pytest.mark.slow
def test_questions_about_long_videos_go_on_from_there(demo, root):
    folder, _ = demo
    result = subprocess.run(
        [sys.executable, "-m", "eval.demo_qa", "--quick"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "[5/5] moments of unseen films" in result.stdout
    frames = {}
    for split in ("test", "long"):
        qa = json.loads((folder / f"demo/qa_{split}/qa.json").read_text())
        frames[split] = qa["settings"]["num_frames"], max(q["seconds"][-1] for q in qa["questions"])
        # Two steps teach nothing, and nothing else can tell: all controls without video are chance.
        for name in ("blind", "blank", "longest", "shortest", "majority"):
            control, chance = (qa["controls"][n]["accuracy"] for n in (name, "chance"))
            assert control == pytest.approx(chance), name
        assert (folder / f"demo/qa_{split}/report.html").stat().st_size > 50_000
    assert frames == {"test": (6, 21), "long": (12, 45)}
    moments = json.loads((folder / "demo/moments/grounding.json").read_text())
    assert moments["headline"] == "head" and moments["data"]["measured"] == 2 * 6 * 6 + 3 * 3
    assert {"shuffled", "centre", "whole", "prior"} == set(moments["lead"])


def run_here(command):
    """Run a step of a demo in this process, which saves its start."""
    words = shlex.split(command)
    if words[0] == "vmm":
        alone = ["--num-workers", "0"] if words[2] == "classification" else []
        assert cli.main([*words[1:], *alone]) == 0, command
    else:
        assert import_module(words[2]).main(words[3:]) == 0, command


@pytest.mark.slow
def test_motions_are_classified(tmp_path, root, monkeypatch, capsys):
    (tmp_path / "recipes").symlink_to(root / "recipes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "_run", run_here)
    assert demo_classes.main(["--quick"]) == 0
    assert "[7/7] page" in capsys.readouterr().out
    choices = {}
    for name in ("videomamba", "reversed", "frame_only"):
        found = json.loads((tmp_path / f"demo/classes/{name}/classification.json").read_text())
        choices[name] = [choice for _, _, choice in found["predictions"]]
        assert found["data"]["readable"] == 24, name
        assert found["settings"]["frame_order"] == ("reversed" if name == "reversed" else "forward")
    # Clips lie in pairs, one backwards: who sees single frames says the same of both, and who is
    # shown all of them backwards says of each what it said of the other.
    assert choices["frame_only"][::2] == choices["frame_only"][1::2]
    assert choices["reversed"][::2] == choices["videomamba"][1::2]
    assert choices["reversed"][1::2] == choices["videomamba"][::2]
    page = (tmp_path / "demo/classes.html").read_text()
    assert "Which motion, and which way round?" in page and "vmm fit -c recipes" in page
