"""A text encoder of somebody else, from its recipe to an exported folder in use."""

import json

import pytest
import torch
import yaml

from tests.models.bag_of_words import BagOfWords
from vmm import VideoTextEncoder
from vmm.cli import main
from vmm.evaluation.retrieval.command import main as retrieval
from vmm.runs import load_run

TOWER = {"class_path": "tests.models.bag_of_words.BagOfWords", "init_args": {"embed_dim": 24}}
DUAL = {"vtc": 1.0, "vtm": 0.0, "mlm": 0.0, "align": 0.0}


@pytest.fixture(scope="module")
def fit(root, demo_shards, tmp_path_factory):
    def fit(*options, **arguments):
        folder = tmp_path_factory.mktemp("tower")
        recipe = yaml.safe_load((root / "recipes/stage2_vtt.yaml").read_text())
        recipe["model"]["init_args"] |= {"text_encoder": TOWER} | arguments
        recipe["model"]["init_args"]["video_encoder"] = str(
            root / "recipes/encoders/videomamba_demo.yaml"
        )
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        logger = "--trainer.logger.init_args"
        status = main(
            [
                "fit",
                *("-c", str(folder / "recipe.yaml")),
                *("-c", str(root / "recipes/overlays/debug.yaml")),
                *demo_shards.options(),
                *(f"{logger}.save_dir={folder}", f"{logger}.version=run", *options),
            ]
        )
        return status, folder / "stage2_vtt" / "run"

    return fit


@pytest.fixture(scope="module")
def run(fit):
    """A dual encoder after two steps."""
    status, run = fit(loss_weights=DUAL)
    assert status == 0
    return run


@pytest.fixture(scope="module")
def exported(run):
    folder = run.parent / "exported"
    assert main(["export", str(run), str(folder)]) == 0
    return folder


def test_two_steps_teach_it(run):
    encoder = load_run(run, "last").model.text_encoder
    words = encoder.words.weight
    assert isinstance(encoder, BagOfWords) and words.isfinite().all()
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    moments = [s["exp_avg"] for s in state["optimizer_states"][0]["state"].values()]
    assert any(m.shape == words.shape and m.abs().sum() > 0 for m in moments)


@pytest.mark.parametrize("weight", ["vtm", "mlm"])
def test_losses_that_it_has_no_layers_for_are_refused_at_once(fit, capfd, weight):
    status, run = fit(loss_weights=DUAL | {weight: 1.0})
    assert status == 2 and not run.exists()
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert "looks at a video; set loss_weights.vtm and loss_weights.mlm to 0" in said


@pytest.mark.slow
def test_it_is_evaluated_without_re_ranking(run, exported, demo_shards, tmp_path, capfd):
    shards = ["--shards", f"{demo_shards.folder}/test-*.tar"]
    assert retrieval(["--run", str(run), *shards, "--out", str(tmp_path / "default")]) == 0
    assert json.loads((tmp_path / "default/retrieval.json").read_text())["reranked"] is None
    assert "re-ranked" not in capfd.readouterr().out.partition("Dual encoder:")[0]
    asked = {"run": ["--run", str(run)], "folder": ["--model", f"vmm:{exported}"]}
    found = {}
    for name, model in asked.items():
        out = tmp_path / name
        assert retrieval([*model, *shards, "--out", str(out), "--no-rerank"]) == 0
        found[name] = json.loads((out / "retrieval.json").read_text())
        assert found[name]["reranked"] is None
    assert found["run"]["dual"] == found["folder"]["dual"]


def test_an_exported_one_gives_the_vectors_of_the_run(run, exported, demo_shards):
    encoder = VideoTextEncoder.from_pretrained(exported, device="cpu")
    tower = json.loads((exported / "config.json").read_text())["text_encoder"]
    assert tower["class_path"] == TOWER["class_path"] and tower["init_args"]["embed_dim"] == 24
    model = load_run(run, "last").model
    texts = ["a small red circle", "a blue bar grows"]
    tokens = model.text_encoder.tokenize(texts)
    with torch.no_grad():
        want = torch.nn.functional.normalize(model.project_text(model.encode_text(*tokens).pooled))
    torch.testing.assert_close(torch.from_numpy(encoder.encode_text(texts)), want)
    with pytest.raises(ValueError, match="looks at a video; compare the vectors"):
        encoder.score([], [])


def test_other_formats_hold_what_there_is(run, tmp_path):
    out = tmp_path / "st"
    assert main(["export", str(run), str(out), "--format", "sentence-transformers"]) == 0
    assert [path.name for path in out.iterdir()] == ["dual_encoder"]
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(out / "dual_encoder"), device="cpu", trust_remote_code=True)
    assert model.encode(["a red circle"]).shape == (1, 64)
    assert main(["export-upstream", str(run), str(tmp_path / "upstream.pth")]) == 2


def test_a_search_is_not_re_ranked(exported, demo_shards, tmp_path, capfd):
    index = str(tmp_path / "index")
    films = sorted(demo_shards.folder.glob("test-*.tar"))[:1]
    assert main(["encode", str(films[0]), "--out", index, "--encoder", str(exported)]) == 0
    assert main(["search", index, "a red circle", "--rerank", "2"]) == 2
    assert "looks at a video; search without re-ranking" in capfd.readouterr().err
    assert main(["search", index, "a red circle"]) == 0
