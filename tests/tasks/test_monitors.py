"""What is watched must be what is logged; the mistakes are rows of tests/integration."""

import pytest

from vmm.trainer_cli import run

RECIPES = {
    "stage1_mvp": {"val/align"},
    "stage2_vtt": {"val/t2v_recall_1", "val/v2t_mean_rank", "val/recall_mean"},
    "answer_qa": {"val/accuracy", "val/loss"},
    "classification": {"val/top_1", "val/top_5", "val/loss"},
    "self_distillation": {"train/classification", "train/distillation", "val/top_1"},
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_task_names_all_that_it_logs(recipe, root, demo_shards, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    words = ["fit", "-c", f"recipes/{recipe}.yaml", "-c", "recipes/overlays/debug.yaml"]
    words += demo_shards.options(images=recipe == "stage2_vtt")
    if recipe == "answer_qa":
        words.append(f"--model.init_args.answers={demo_shards.folder}/answers.json")
    done = run([*words, f"--trainer.logger.init_args.save_dir={tmp_path}"])
    logged = {n for n in done.trainer.callback_metrics if n.startswith(("train/", "val/"))}
    assert logged == done.model.curves() | {"train/loss", "train/grad_norm"}
    assert logged >= RECIPES[recipe]


def test_early_stopping_ends_a_run_that_does_not_improve(root, demo_shards, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    words = ["fit", "-c", "recipes/stage2_vtt.yaml", "-c", "recipes/overlays/debug.yaml"]
    words += [*demo_shards.options(), f"--trainer.logger.init_args.save_dir={tmp_path}"]
    words += ["--early_stopping.monitor=val/t2v_recall_10", "--early_stopping.patience=2"]
    words += ["--early_stopping.min_delta=200", "--trainer.max_epochs=50"]
    done = run(words)
    assert done.trainer.global_step == 2 * 3  # one best, two that are not better
    assert (tmp_path / "stage2_vtt/version_0/checkpoints/last.ckpt").is_file()
