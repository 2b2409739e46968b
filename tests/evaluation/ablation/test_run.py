import json

import pytest

from vmm.evaluation.ablation import run
from vmm.evaluation.ablation.run import Settings, run_all, run_of
from vmm.evaluation.ablation.studies import Start, Training

FIRST = Training("stage1_mvp.yaml", classifies=False)
SECOND = Training("classification.yaml", start={"model.init_from": Start(FIRST, "x.ckpt")})


@pytest.fixture
def settings(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    return Settings(out=tmp_path, data=tmp_path, seeds=2, steps=7, jobs=3)


@pytest.fixture
def fitted(monkeypatch, settings):
    """Arguments of the trainings that were done; those of the second need the first one's run."""
    done = []

    def fit(arguments, log):
        for word in arguments:
            if word.startswith("--model.init_from="):
                assert (
                    word.endswith("/x.ckpt") and (settings.out / word.split("=")[1]).parent.is_dir()
                )
        done.append(arguments)
        log.with_suffix("").mkdir(parents=True)

    monkeypatch.setattr(run, "fit", fit)
    monkeypatch.setattr(run, "_classify", lambda training, path, data: {"top_1": 42.0})
    return done


def test_finished_trainings_are_not_repeated(settings, fitted):
    said = []
    found = run_all([FIRST, SECOND], settings, said.append)
    assert len(fitted) == 4 and len(said) == 4 and said[-1].startswith("4 of 4 trainings")
    assert found[SECOND.key(), 2]["top_1"] == 42 and "top_1" not in found[FIRST.key(), 1]
    (run_of(SECOND, 2, settings) / "ablation.json").unlink()  # as if it had been stopped
    again = run_all([FIRST, SECOND], settings, said.append)
    assert len(fitted) == 5 and again.keys() == found.keys()


@pytest.mark.slow
def test_a_training_that_fails_is_named(settings):
    told = r"failed with status 2: .*matches no file.*\(see .*\.log; `vmm fit -c recipes/stage1"
    lost = Training(
        "stage1_mvp.yaml",
        {"data.init_args.train_videos": "gone.tar", "data.init_args.make_demo": "false"},
    )
    with pytest.raises(ValueError, match=told):
        run_all([lost], settings, print)
    assert not (run_of(lost, 1, settings) / "ablation.json").exists()


def test_a_changed_recipe_is_another_run(settings, root, monkeypatch, tmp_path):
    before = run_of(SECOND, 1, settings)
    (tmp_path / "recipes").mkdir()
    for name in ("stage1_mvp.yaml", "classification.yaml"):
        (tmp_path / "recipes" / name).write_bytes((root / "recipes" / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert run_of(SECOND, 1, settings) == before
    with (tmp_path / "recipes/stage1_mvp.yaml").open("a") as file:  # of what it starts from
        file.write("# changed\n")
    assert run_of(SECOND, 1, settings) != before


def test_results_are_json(settings, fitted):
    run_all([FIRST], settings, lambda line: None)
    assert "seconds" in json.loads((run_of(FIRST, 1, settings) / "ablation.json").read_text())
