import copy
import json
import re
from dataclasses import replace

import pytest
import yaml

from vmm.export.model_card import find_results, model_card
from vmm.models.text_encoder import BertTextEncoder
from vmm.runs import load_run

NUMBERS = {f"{d}_recall_{k}": 10.0 * k for d in ("t2v", "v2t") for k in (1, 5, 10)}


@pytest.fixture(scope="module")
def run(trained):
    return load_run(trained[0], "last")


def result(folder, sha256, **change):
    content = {
        "name": "Some test",
        "model": {"sha256": sha256},
        "data": {
            "files": ["test-000000.tar"],
            "clips": {"listed": 9, "readable": 8},
            "videos": 9,
            "captions": 11,
        },
        "settings": {
            "num_frames": 4,
            "image_size": 32,
            "frame_order": "forward",
            "precision": "float32",
            "k": 16,
        },
        "dual": NUMBERS,
        "mixed": NUMBERS,
        "reranked": None,
    } | change
    folder.mkdir(parents=True)
    path = folder / "retrieval.json"
    path.write_text(json.dumps(content))
    return path


def test_says_what_it_is_and_keeps_paths_of_this_machine_to_itself(run):
    card = model_card(run, "mit", [])
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "mit" and header["library_name"] == "vmm"
    assert "`train-*.tar`" in card and "embed_dim: 32" in card and run.sha256 in card
    assert "secret" not in card
    assert "None were measured" in card
    assert "Ask whoever trained it" in model_card(run, "unknown", [])


def test_its_limits_are_those_of_the_model(run):
    (limits,) = re.findall(r"## Limits\n\n(.*?)\n\n##", model_card(run, "mit", []), re.DOTALL)
    assert "sees 4 frames" in limits and "a square of 32 pixels" in limits
    assert "cut to 8 tokens of a vocabulary of 10." in limits and "cannot re-rank" not in limits
    dual = replace(run, model=copy.deepcopy(run.model))
    dual.model.text_encoder.__class__ = type("Dual", (BertTextEncoder,), {"fuses": False})
    assert "cannot re-rank" in model_card(dual, "mit", [])


def test_results_come_with_their_protocol(run, tmp_path):
    path = result(tmp_path / "version_0/retrieval_forward", run.sha256)
    beside = result(tmp_path / "after", run.sha256)
    assert find_results(tmp_path / "version_0") == [path, beside]
    card = model_card(run, "mit", [path])
    row = "| 10.0 | 50.0 | 100.0 | 10.0 | 50.0 | 100.0 |"
    assert f"| dual encoder, mean of the frames' cosines (published) {row}" in card
    assert f"| re-ranked by the mixture, as `score` does {row}" in card
    assert "matching alone" not in card and "vectors of this encoder" not in card
    said = " ".join(card.split())
    assert (
        "Protocol: 9 clips in the gallery, 8 of 9 clips readable, 11 captions, from "
        "`test-000000.tar`; 4 frames of 32 pixels, forward; float32; "
        "the best 16 of each query re-ranked."
    ) in said
    assert "None were measured" not in card


def test_results_of_other_weights_are_left_out(run, tmp_path):
    card = model_card(run, "mit", [result(tmp_path / "x", "0" * 64)])
    assert "None were measured" in card


def test_results_that_are_none_are_named(run, tmp_path):
    for number, change in enumerate(({"settings": None}, {"dual": {}}, {"model": 3})):
        path = result(tmp_path / str(number), run.sha256, **change)
        with pytest.raises(ValueError, match=rf"{number}/retrieval\.json cannot be read"):
            model_card(run, "mit", [path])
    with pytest.raises(ValueError, match="cannot be read"):
        model_card(run, "mit", [tmp_path / "absent.json"])
