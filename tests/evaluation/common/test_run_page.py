import json

import pytest
import yaml

from vmm.evaluation.common.run_page import facts, next_commands, write_run_page

TASKS = {
    "vmm.tasks.video_text.VideoTextTask": ["vmm eval retrieval", "vmm export", "vmm search"],
    "vmm.tasks.classification.ClassificationTask": ["vmm eval classification", "vmm export"],
    "vmm.tasks.answer.AnswerTask": ["vmm eval open-qa"],
    "vmm.tasks.masked_pretrain.MaskedPretrainTask": ["vmm fit -c stage2_vtt.yaml"],
    "somebody.elses.Task": [],
}


@pytest.fixture
def run(tmp_path):
    """A run's folder, with what it logged and how it ended."""
    folder = tmp_path / "my runs"

    def make(task="vmm.tasks.video_text.VideoTextTask", end="done", **checkpoint):
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        config = {
            "model": {"class_path": task, "init_args": {"freeze": "text_encoder"}},
            "data": {"init_args": {"train_videos": "t-*.tar", "test_videos": "x-*.tar"}},
            "checkpoint": checkpoint,
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "run.json").write_text(json.dumps({"end": end, "step": 30}))
        lines = ["step,train/loss,val/t2v_recall_1", "9,3.5,40", "19,2.5,60", "29,2.0,50"]
        (folder / "metrics.csv").write_text("\n".join(lines))
        (folder / "checkpoints/epoch=0-step=20.ckpt").touch()
        return folder

    return make


@pytest.mark.parametrize(("task", "commands"), TASKS.items())
def test_what_can_be_done_fits_the_task(run, task, commands):
    folder = run(task)
    found = [
        command
        for _, command in next_commands(folder, yaml.safe_load((folder / "config.yaml").open()))
    ]
    for wanted in commands:
        assert any(command.startswith(wanted) for command in found), wanted
    assert bool(found) == bool(commands)
    for command in found:
        assert "my runs" not in command.replace(f"'{folder}", "")  # quoted for the shell
    if "eval" in "".join(commands):
        assert f"--run '{folder}' --shards 'x-*.tar'" in found[0]


def test_the_page_says_what_became_of_a_run(run, tmp_path):
    folder = run(monitor="val/t2v_recall_1", mode="max")
    rows = write_run_page(tmp_path / "report.html", [("mine", folder)])
    page = (tmp_path / "report.html").read_text()
    assert "It is finished; 30 steps are done." in page and "Training of mine" in page
    assert ["mine", "frozen", "text_encoder"] in rows
    assert ["mine", "its numbers", "val/t2v_recall_1 60"] in rows  # not those of the end
    assert page.count("<svg") == 2 and "What training makes small" in page
    assert "http" not in page.replace("http-equiv", "")  # nothing is loaded


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (
            "stopped",
            "It was stopped, and goes on with the same command and --resume, from step 30.",
        ),
        ("numbers not finite", "It ended: numbers not finite."),
    ],
)
def test_also_of_a_run_that_did_not_end_well(run, tmp_path, end, said):
    write_run_page(tmp_path / "report.html", [("mine", run(end=end))])
    assert said in (tmp_path / "report.html").read_text()


def test_a_run_that_has_nothing_yet_has_a_page(run, tmp_path):
    folder = run()
    for name in ("metrics.csv", "run.json", "checkpoints/epoch=0-step=20.ckpt"):
        (folder / name).unlink()
    rows = write_run_page(tmp_path / "report.html", [("mine", folder)])
    assert ["mine", "checkpoint", "none was saved"] in rows
    assert next_commands(folder, yaml.safe_load((folder / "config.yaml").open())) == []
    page = (tmp_path / "report.html").read_text()
    assert "What became of it is not recorded." in page and "No number was written" in page
    with pytest.raises(ValueError, match="not a run directory"):
        write_run_page(tmp_path / "report.html", [("mine", tmp_path)])


def test_that_it_was_measured_on_what_it_trained_on_stands_on_the_page(run, tmp_path):
    folder, leak = run(), "train_videos and val_videos share 1 shard: a.tar; ..."
    (folder / "run.json").write_text(json.dumps({"end": "done", "step": 30, "leaks": [leak]}))
    rows = write_run_page(tmp_path / "report.html", [("mine", folder)])
    assert ["mine", "beware", leak] in rows and leak in (tmp_path / "report.html").read_text()
    assert "It is finished; 30 steps are done." in (tmp_path / "report.html").read_text()
    for odd in ({"end": "done", "step": 1}, {"end": "done", "step": 1, "leaks": 3}, [leak], None):
        (folder / "run.json").write_text(json.dumps(odd))
        assert "beware" not in dict(facts(folder, {}))


def test_corpora_stand_by_name(run):
    corpora = {"a": {"shards": "a-*.tar", "weight": 2.0}, "b": {"shards": ["b.tar", "c.tar"]}}
    found = dict(facts(run(), {"data": {"init_args": {"train_videos": corpora}}}))
    assert found["training videos"] == "a: a-*.tar; b: b.tar, c.tar"


def test_without_a_monitor_the_numbers_are_the_last(run):
    folder = run()
    found = dict(facts(folder, yaml.safe_load((folder / "config.yaml").open())))
    assert found["its numbers"] == "val/t2v_recall_1 50"
    assert "(the newest; checkpoint.monitor, which is not set, names" in found["checkpoint"]
    folder = run(monitor="val/loss")
    found = dict(facts(folder, yaml.safe_load((folder / "config.yaml").open())))
    assert "(the newest: val/loss was never measured)" in found["checkpoint"]
    folder = run(monitor="val/t2v_recall_1", mode="max")
    found = dict(facts(folder, yaml.safe_load((folder / "config.yaml").open())))
    assert found["checkpoint"].endswith("epoch=0-step=20.ckpt (best val/t2v_recall_1)")
    assert "best" not in "".join(found)  # no checkpoint is called so that was not chosen
