"""What a user sees of a run: what it is, how far it is, what there is in the end; no noise."""

import logging
import re

import pytest

from vmm.cli import main

NOISE = ("v_num", "Epoch 0", "FLOPs", "eval mode", "weights_only", "Seed set", "dirpath", "━")


@pytest.fixture
def said(root, demo_shards, tmp_path, monkeypatch, capfd):
    """Run a trainer command; give its status and what it wrote, with this test's folder as RUNS."""
    monkeypatch.chdir(root)

    def said(command, *options, recipe="stage2_vtt"):
        status = main(
            [
                *(command, "-c", f"recipes/{recipe}.yaml", "-c", "recipes/overlays/debug.yaml"),
                *demo_shards.options(images=recipe == "stage2_vtt"),
                f"--trainer.logger.init_args.save_dir={tmp_path}",
                *options,
            ]
        )
        captured = capfd.readouterr()
        text = (captured.out + captured.err).replace(str(tmp_path), "RUNS")
        for handler in logging.getLogger("vmm").handlers:
            handler.close()
        return status, text.replace(str(demo_shards.folder), "DATA")

    return said


def test_a_run_says_what_it_is_and_what_there_is_in_the_end(said, tmp_path):
    freeze = "--model.init_args.freeze=text_encoder"
    status, text = said("fit", "--data.init_args.steps_per_epoch=8", freeze)
    assert status == 0
    run = "RUNS/stage2_vtt/version_0"
    for line in (
        rf"run:        {run}",
        r"data:       \d+ videos of DATA/train-\*\.tar \(\d shards?\)",
        r"data:       \d+ images of DATA/images-\*\.tar",
        r"validation: \d+ videos of DATA/val-\*\.tar",
        r"left out:   nothing",
        r"model:      VideoTextModel, 1\.11 M parameters; VideoMamba of width 128 sees 4 frames",
        r"trained:    video_encoder \(0\.59 M\), vision_proj \(8,256\)",
        r"frozen:     text_encoder \(0\.50 M\)",
        r"steps:      8, each of 4 videos or 4 images; 1 process on cpu, precision 32-true",
        r"end:        expected at \d\d:\d\d, in \d+ s",
        r"validation at step 8: val/t2v_recall_1 ",
        r"done:       after 8 steps",
        rf"checkpoint: {run}/checkpoints/epoch=0-step=8.ckpt",
        r"numbers:    val/t2v_recall_1 ",
        rf"report:     {run}/report.html",
        rf"next:       .*: vmm eval retrieval --run {run} --shards 'DATA/test-\*\.tar'",
        rf"next:       .*: vmm export {run} {run}/encoder",
    ):
        assert re.search(rf"^vmm: {line}", text, re.MULTILINE), (line, text)
    assert not [word for word in NOISE if word in text], text
    page = (tmp_path / "stage2_vtt/version_0/report.html").read_text()
    assert "It is finished; 8 steps are done." in page and "train/vtc" in page

    # What evaluates writes nothing, and so leaves no folder behind.
    status, text = said("validate", f"--ckpt_path={tmp_path}/stage2_vtt/version_0")
    assert status == 0 and "val/t2v_recall_1" in text
    status, text = said("validate", "--ckpt_path=best")  # of the newest run, as before
    assert status == 0 and "taking RUNS/stage2_vtt/version_0/checkpoints/epoch=0-step=8" in text
    assert not [word for word in NOISE if word in text.replace("━", "")], text
    assert [path.name for path in (tmp_path / "stage2_vtt").iterdir()] == ["version_0"]


@pytest.mark.parametrize(
    "option",
    [
        "--data.init_args.batch_size=5000",  # known when the data is opened
        "--model.init_args.init_from=recipes",  # when weights are loaded
    ],
)
def test_a_start_that_fails_leaves_no_folder(said, tmp_path, option):
    status, text = said("fit", option)
    assert status == 2 and "vmm: error: " in text
    assert not list(tmp_path.glob("*/version_*"))


def test_validation_of_no_weights_is_refused_in_one_sentence(said, tmp_path):
    status, text = said("validate")
    assert status == 2 and text.count("\n") == 1 and "would use random weights" in text
    assert not list(tmp_path.glob("*/version_*"))


def test_lightnings_own_bar_can_still_be_asked_for(said):
    status, text = said("fit", "--trainer.enable_progress_bar=true", recipe="stage1_mvp")
    assert status == 0 and "validation at step" not in text
    assert "next:       Train with text from here: vmm fit -c stage2_vtt.yaml" in text
