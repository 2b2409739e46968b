from pathlib import Path

import pytest

from vmm.data.transforms import ClipSettings
from vmm.evaluation.common import options as module
from vmm.evaluation.common.options import ModelOptions, Options


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: Options().given_run(), "give the run directory of a trained model"),
        (lambda: Options().given_shards(), "give shards, or a data set with its annotations"),
        (lambda: Options(dataset="x", media="y").official(), "x needs its annotations and its me"),
        (
            lambda: Options(dataset="x", annotations=Path("y")).official(),
            "x needs its annotations and",
        ),
        (lambda: ModelOptions().open_encoder(), "give the run directory of a trained model"),
        (lambda: Options(device="gpu").prepare(), "'gpu' cannot be used here"),
        (lambda: Options(shards="gone.tar").prepare(), "'gone.tar' matches no file"),
        (lambda: Options(out=Path(__file__)).prepare(), r"--out .*\.py is a file; name a folder"),
    ],
)
def test_what_is_missing_or_wrong_is_said(ask, said):
    with pytest.raises(ValueError, match=said):
        ask()


def test_an_encoder_of_one_s_own_is_the_model(toys):
    encoder = toys.Encoder()
    assert ModelOptions(model=encoder).open_encoder() is encoder


def test_a_model_by_its_name_and_a_run_are_opened_as_told(monkeypatch):
    monkeypatch.setattr(module, "load_encoder", lambda *told: told)
    named = ModelOptions(model="vmm:x", num_frames=3, device="cuda", trust_remote_code=True)
    assert named.open_encoder() == ("vmm:x", 3, "cuda", True)

    class Run:
        clip = ClipSettings(8, 32)

    monkeypatch.setattr(module, "load_run", lambda *told: told == (Path("r"), "last") and Run())
    monkeypatch.setattr(module.VmmEncoder, "of_run", lambda run, *told: (type(run), *told))
    of_run = ModelOptions(run=Path("r"), checkpoint="last", num_frames=4).open_encoder()
    assert of_run == (Run, "cpu", ClipSettings(4, 32))


def test_results_go_into_the_run_or_below_runs_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path("a/run")
    for options, folder in (
        (Options(run=run), run / "asked"),
        (Options(), Path("runs/ViT-B-32/asked")),
        (Options(run=run, out=Path("b/c")), Path("b/c")),
    ):
        assert options.folder("asked", "ViT:B/32") == folder and folder.is_dir()


def test_files_are_named_without_their_folders():
    assert Options(shards="/data/x-*.tar").files() == ["x-*.tar"]
    official = Options(dataset="x", annotations=Path("/data/a.json"), media="/data/videos")
    assert official.files() == ["a.json", "videos"]
