import onnx
import onnxruntime
import pytest

from vmm.export import quantize
from vmm.export.command import main
from vmm.export.encoder import VideoTextEncoder

pytestmark = pytest.mark.slow

pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def folder(encoder_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("int8") / "out"
    assert main([str(encoder_folder), str(out), "--format", "onnx", "--quantize", "all"]) == 0
    return out


def test_weights_have_8_bits_and_vectors_are_near_those_of_the_model(folder, encoder_folder):
    encoder = VideoTextEncoder.from_pretrained(encoder_folder, tune=False)
    texts = ["a red circle", "moves left"]
    tokens = encoder.model.text_encoder.tokenize(texts)
    feed = {name: getattr(tokens, name).numpy() for name in ("input_ids", "attention_mask")}
    got = onnxruntime.InferenceSession(folder / "text.onnx").run(None, feed)[0]
    cosines = (got * encoder.encode_text(texts)).sum(1)
    assert (cosines > 0.98).all() and (cosines < 1 - 1e-7).all()
    for path in folder.glob("*.onnx"):
        weights = {w.data_type for w in onnx.load(path).graph.initializer if len(w.dims) == 2}
        assert onnx.TensorProto.INT8 in weights, path.name
    assert {path.suffix for path in folder.iterdir()} == {".onnx", ".json", ".md"}


def test_a_file_that_has_little_to_do_with_the_model_is_refused(
    encoder_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(quantize, "LEAST_COSINE", 1.1)
    with pytest.raises(ValueError, match=r"cosine with the model.s is .* without --quantize"):
        main([str(encoder_folder), str(tmp_path / "o"), "--format", "onnx", "--quantize", "all"])
    assert not list(tmp_path.iterdir())


def test_only_onnx_encoders_are_quantized(encoder_folder, tmp_path):
    with pytest.raises(ValueError, match="--quantize is for --format onnx, not for folder"):
        main([str(encoder_folder), str(tmp_path / "o"), "--quantize", "all"])
