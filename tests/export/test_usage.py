"""What a model card says about loading is run as it stands, for every format."""

import re

import numpy as np
import pytest

from tests.export.test_classifier import write_run as write_classifier
from vmm.export import program_files
from vmm.export.classifier import ActionClassifier
from vmm.export.command import main
from vmm.export.encoder import VideoTextEncoder
from vmm.export.usage import ENCODER, PLACE, with_usage

LOADERS = {
    "folder": "VideoTextEncoder.from_pretrained",
    "onnx": "onnxruntime.InferenceSession",
    "pt2": "torch.export.load",
}


def code_of(folder):
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return code


def run(folder, clip, caption, loader):
    """Run the block of a card, which is to load it in its own way, with this clip and caption."""
    code = code_of(folder)
    assert f"{loader}(" in code
    for said, here in ((PLACE, folder), ("clip.mp4", clip)):
        assert f'"{said}"' in code
        code = code.replace(f'"{said}"', repr(str(here)))
    names = {}
    exec(code.replace('"a caption"', repr(caption)), names)
    return names


@pytest.fixture(scope="module")
def wanted(encoder_folder, clips):
    encoder = VideoTextEncoder.from_pretrained(encoder_folder, device="cpu")
    caption = "A red-circle moves (left), " * 20  # longer than the model reads
    cosine = encoder.encode_text([caption]) @ encoder.encode_video(clips[:1]).T
    return caption, cosine, encoder.score([caption], clips[:1])[0]


@pytest.fixture
def written(encoder_folder, tmp_path, monkeypatch):
    """Export in a format."""
    monkeypatch.setattr(program_files.shutil, "which", lambda _: None)  # no compiler

    def write(format_name, source=encoder_folder):
        assert main([str(source), str(tmp_path / "out"), "--format", format_name]) == 0
        return tmp_path / "out"

    return write


@pytest.mark.parametrize("format_name", LOADERS)
@pytest.mark.slow
def test_the_lines_of_a_card_give_the_vectors(written, wanted, clips, format_name):
    if format_name == "onnx":
        pytest.importorskip("onnxscript")
    caption, cosine, _ = wanted
    got = run(written(format_name), clips[0], caption, LOADERS[format_name])["similarity"]
    np.testing.assert_allclose(got, cosine, atol=1e-5)


def test_each_folder_of_sentence_transformers_says_its_own(written, wanted, clips, tmp_path):
    pytest.importorskip("sentence_transformers")
    caption, cosine, score = wanted
    out = written("sentence-transformers")
    dual = run(out / "dual_encoder", clips[0], caption, "SentenceTransformer")["similarity"]
    np.testing.assert_allclose(dual, cosine, atol=1e-5)
    (hit,) = run(out / "cross_encoder", clips[0], caption, "CrossEncoder")["ranked"]
    assert hit["score"] == pytest.approx(score, abs=1e-4)
    assert main([str(out / "dual_encoder"), str(tmp_path / "back")]) == 0
    assert ENCODER in (tmp_path / "back/README.md").read_text()


@pytest.mark.parametrize("format_name", LOADERS)
@pytest.mark.slow
def test_classifiers_say_how_they_are_loaded(written, clips, tmp_path, format_name):
    if format_name == "onnx":
        pytest.importorskip("onnxscript")
    write_classifier(tmp_path / "run")
    out = written(format_name, tmp_path / "run")
    loader = "ActionClassifier.from_pretrained" if format_name == "folder" else LOADERS[format_name]
    said = run(out, clips[0], "", loader)
    if format_name == "folder":
        assert said["best"].startswith("LABEL_") and 0 < said["probability"] <= 1
    else:
        main([str(tmp_path / "run"), str(tmp_path / "folder")])
        model = ActionClassifier.from_pretrained(tmp_path / "folder", device="cpu")
        (best, _), *_ = model.classify(clips[:1])[0]
        assert best == f"LABEL_{np.asarray(said['logits'])[0].argmax()}"


def test_what_people_wrote_into_a_card_stays():
    own = 'Ours.\n\n```python\nprint("hello")\n```\n\n## Results\n\nGood.\n'
    extended = with_usage(own, ENCODER)
    assert extended.startswith(own) and extended.count(ENCODER) == 1
    other = 'load("THIS FOLDER")'
    assert with_usage(extended, other) == extended.replace(ENCODER, other)
    assert with_usage(with_usage(extended, other), ENCODER) == extended
    assert with_usage("", other).startswith("## Use\n")
