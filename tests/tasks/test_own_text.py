from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace

from vmm.models.run_text import TEXT_FILES
from vmm.tasks.own_text import run_behind


@pytest.fixture
def run(tmp_path):
    """A run's folder with text files and a checkpoint."""
    run = tmp_path / "stage2" / "version_3"
    (run / TEXT_FILES).mkdir(parents=True)
    (run / "checkpoints").mkdir()
    (run / "config.yaml").write_text("model: {}\n")
    torch.save({"global_step": 7}, run / "checkpoints/last.ckpt")
    return run


def settings(run, version=None, **model):
    curves = Namespace(save_dir=str(run.parent.parent), name=run.parent.name, version=version)
    return Namespace(
        ckpt_path=model.pop("ckpt_path", None),
        model=Namespace(init_args=Namespace(init_from=None, **model) if model else Namespace()),
        trainer=Namespace(logger=Namespace(init_args=curves)),
    )


@pytest.mark.parametrize("named", ["", "checkpoints", "checkpoints/last.ckpt"])
def test_the_run_of_a_checkpoint_is_found(run, named):
    assert run_behind(settings(run, ckpt_path=str(run / named)), resume=False) == run


def test_the_run_that_goes_on_is_found(run):
    assert run_behind(settings(run, version="version_3"), resume=True) == run
    assert run_behind(settings(run, version=3), resume=True) == run
    assert run_behind(settings(run, ckpt_path="last"), resume=False) == run


def test_start_weights_are_those_of_a_run(run):
    asked = settings(run)
    asked.model.init_args.init_from = str(run)
    assert run_behind(asked, resume=False) == run


@pytest.mark.parametrize(
    ("parts", "found"),
    [("video_encoder", False), (["video_encoder"], False), ("text_encoder", True), (None, True)],
)
def test_a_run_that_gives_no_text_encoder_gives_no_words(run, parts, found):
    asked = settings(run, init_parts=parts)
    asked.model.init_args.init_from = str(run)
    assert (run_behind(asked, resume=False) is not None) == found


def test_a_run_that_begins_anew_keeps_the_weights_that_its_recipe_names(run):
    (run / "checkpoints/last.ckpt").write_bytes(b"torn")
    assert run_behind(settings(run, version="version_3"), resume=True) is None


def test_others_have_no_such_run(run, tmp_path):
    assert run_behind(settings(run), resume=False) is None
    assert run_behind(settings(run, ckpt_path=str(tmp_path / "a.ckpt")), resume=False) is None
    (run / TEXT_FILES).rmdir()
    for asked in ({"ckpt_path": str(run)}, {"version": "version_3"}):
        assert run_behind(settings(run, **asked), resume="version" in asked) is None
    assert Path(run).is_dir()
