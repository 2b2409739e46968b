import shutil

import numpy as np
import onnx
import pytest

from vmm.export.encoder import VideoTextEncoder
from vmm.serving.backends import OnnxBackend, TorchBackend, open_backend

pytestmark = pytest.mark.slow


def test_captions_of_any_length_are_cut_and_filled_as_in_training(onnx_folder, encoder_folder):
    texts = ["a", "a red circle moves left " * 5, "red", "nobody knows this", ""]
    want = VideoTextEncoder.from_pretrained(encoder_folder, tune=False).encode_text(texts)
    np.testing.assert_allclose(OnnxBackend(onnx_folder).encode_texts(texts), want, atol=1e-5)


def test_the_folder_says_what_it_is(onnx_folder, encoder_folder):
    assert isinstance(open_backend(str(onnx_folder)), OnnxBackend)
    torch_ = open_backend(str(encoder_folder), num_frames=6)
    assert isinstance(torch_, TorchBackend) and torch_.clip.num_frames == 6
    assert OnnxBackend(onnx_folder).fingerprint == OnnxBackend(onnx_folder).fingerprint


def test_onnx_folders_that_cannot_be_served_are_refused(onnx_folder, tmp_path):
    with pytest.raises(ValueError, match=r"towers of 4 frames, not of 8; .*--num-frames 8"):
        OnnxBackend(onnx_folder, 8)
    folder = shutil.copytree(onnx_folder, tmp_path / "copy")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer\.json"):
        OnnxBackend(folder)
    shutil.copy(onnx_folder / "tokenizer.json", folder)
    model = onnx.load(folder / "text.onnx")
    del model.metadata_props[:]
    onnx.save(model, folder / "text.onnx")
    with pytest.raises(ValueError, match="does not say how long captions may be"):
        OnnxBackend(folder)
    (folder / "text.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"text\.onnx cannot be loaded"):
        OnnxBackend(folder)
