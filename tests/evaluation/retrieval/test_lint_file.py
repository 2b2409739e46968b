import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.evaluation.contents import write_captions
from vmm.evaluation.retrieval.lint_file import lint_file, read_scores


def test_scores_are_read_as_they_are_stored(tmp_path):
    scores = torch.rand(4, 6)
    for kind in (torch.float32, torch.bfloat16):
        save_file({"s": scores.to(kind)}, tmp_path / "s.safetensors")
        found = read_scores(tmp_path / "s.safetensors")
        assert found.dtype == kind and torch.equal(found, scores.to(kind))
    np.save(tmp_path / "s.npy", scores.double().numpy())
    assert torch.equal(read_scores(tmp_path / "s.npy"), scores.double())


def test_what_is_no_matrix_of_scores(tmp_path):
    for value in (np.nan, np.inf):
        np.save(tmp_path / f"{value}.npy", np.full((6, 6), value, dtype=np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "whole.npy", np.eye(6, dtype=np.int64))
    save_file({"a": torch.eye(6), "b": torch.eye(6)}, tmp_path / "two.safetensors")
    for name, said in {
        "nan.npy": "holds NaN or infinity",
        "inf.npy": "holds NaN or infinity",
        "objects.npy": "is no .npy or .safetensors of one matrix",
        "gone.npy": "No such file",
        "whole.npy": r"holds \(6, 6\) torch.int64, no matrix of scores",
        "two.safetensors": "no matrix of scores",
    }.items():
        with pytest.raises(ValueError, match=said):
            read_scores(tmp_path / name)


def test_either_way_round_fits_the_annotations_and_nothing_else(tmp_path):
    annotations = write_captions(tmp_path)
    np.save(tmp_path / "small.npy", np.eye(5, dtype=np.float32))
    said = r"hold 6 captions of 6 videos, so it must be \(6, 6\)"
    with pytest.raises(ValueError, match=said):
        lint_file(tmp_path / "small.npy", "captions", annotations)
    with pytest.raises(ValueError, match=r"gone\.json is not a file"):
        lint_file(tmp_path / "small.npy", "captions", tmp_path / "gone.json")
