"""The baselines leave training in every format, as VideoMamba does."""

import numpy as np
import pytest
import torch

from tests.export.runs import VIDEO, write_run
from vmm.export import onnx_files, program_files
from vmm.export.command import main
from vmm.export.encoder import VideoTextEncoder
from vmm.export.folder import read_folder
from vmm.export.programs import example_inputs, video_name
from vmm.models.video_vit import DividedViT, JointViT

SIZES = VIDEO | {"depth": 1, "num_heads": 2}


@pytest.fixture(params=[JointViT, DividedViT])
def exported(request, tmp_path):
    """A model, and the encoder folder of the run that holds it."""
    model = write_run(tmp_path / "run", 0, request.param, SIZES)
    assert main([str(tmp_path / "run"), str(tmp_path / "encoder")]) == 0
    return model, tmp_path / "encoder"


def test_an_encoder_folder_gives_the_vectors_of_the_run(exported, clips):
    model, folder = exported
    encoder = VideoTextEncoder.from_pretrained(folder, device="cpu")
    assert type(encoder.model.video_encoder) is type(model.video_encoder)
    vectors = encoder.encode_video(clips)
    encoder.model.load_state_dict(model.state_dict())
    np.testing.assert_allclose(encoder.encode_video(clips), vectors, atol=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-2


@pytest.mark.parametrize("module", [onnx_files, program_files])
@pytest.mark.slow
def test_graphs_compute_what_the_model_does(exported, module, tmp_path):
    if module is onnx_files:
        pytest.importorskip("onnxscript")
    parts = read_folder(exported[1])[0]
    parts.model.requires_grad_(False)
    inputs = example_inputs(parts, [4])[video_name(4)]
    assert module.write_tower(parts, video_name(4), inputs, tmp_path / "tower") < 1e-5
    assert not torch.equal(*inputs[0])
