import pytest

from vmm.cli import main
from vmm.recipe_files import read_recipes
from vmm.setting_help import explain, settings_of
from vmm.tasks.video_text import VideoTextTask

STAGE2 = read_recipes(["stage2_vtt.yaml", "overlays/ema.yaml"])


def test_a_setting_says_what_it_is_its_type_and_values():
    said = explain("model.proj_dim", STAGE2)
    assert said.splitlines() == [
        "--model.proj_dim  (VideoTextTask)",
        "  Width of the joint space.",
        "  int; default: 512",
        "  in these recipes: 64",
    ]
    assert explain("proj_dim", STAGE2) == said == explain("model.init_args.proj_dim", STAGE2)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("model.video_encoder.depth", ("(VideoMamba)", "in these recipes: 4")),
        ("max_words", ("--model.text_encoder.max_words", "word pieces")),
        ("model.optimizer.lr", ("(AdamW)", "in these recipes: 0.003")),
        ("mask_ratio", ("--model.video_mask.ratio", "--model.image_mask.ratio")),
        ("lora.rank", ("--model.lora.rank", "default: 8")),
        ("trainer.max_epochs", ("(Trainer)", "in these recipes: 1")),
        ("ema.decay", ("(WeightAverage)", "in these recipes: 0.999")),
        ("make_demo", ("--data.make_demo", "in these recipes: true")),
        ("resume", ("newest run",)),
    ],
)
def test_settings_are_found_where_they_belong_and_by_their_last_name(word, parts):
    said = explain(word, STAGE2)
    assert all(part in said for part in parts), said


def test_without_a_recipe_those_of_every_task_and_encoder_are_meant():
    said = explain("init_from", [])
    assert {"VideoTextTask", "MaskedPretrainTask", "AnswerTask"} <= set(
        said.replace("(", " ").replace(")", " ").replace(",", " ").split()
    )
    depth = explain("model.video_encoder.depth", [])
    assert "(VideoMamba)" in depth and "(JointViT)" in depth and "in these recipes" not in depth


def test_a_part_lists_its_settings():
    listed = explain("model.text_encoder", STAGE2).splitlines()
    assert listed[0] == "model.text_encoder: vmm.models.text_encoder.BertTextEncoder"
    assert any(line.startswith("  --model.text_encoder.fusion_layer [2]  ") for line in listed)
    every = explain("model", STAGE2)
    for setting in settings_of(VideoTextTask, "model"):
        assert f"\n  --{setting.name}" in every
    assert ".help" not in every and max(map(len, every.splitlines())) <= 100


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("trainer.max_epoch", "trainer.max_epochs"),
        ("model.video_encoder.dept", "model.video_encoder.depth"),
        ("proj_dimm", "model.proj_dim"),
        ("modl", "model"),
    ],
)
def test_what_is_no_setting_gets_the_nearest(word, meant, capsys):
    assert main(["fit", "stage2_vtt.yaml", "--help", word]) == 2
    assert capsys.readouterr().err == (
        f"vmm: error: there is no setting {word}; did you mean {meant}?\n"
    )
