import subprocess
import sys

import numpy as np
import pytest
import torch

from vmm.export.command import main
from vmm.export.encoder import VideoTextEncoder
from vmm.export.folder import read_folder

library = pytest.importorskip("sentence_transformers")
_is_video = pytest.importorskip("vmm.export.sentence_modules")._is_video
TEXTS = ["a red circle", "moves left", "a circle"]


@pytest.fixture(scope="module")
def folder(encoder_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("sentence") / "out"
    arguments = [str(encoder_folder), str(out), "--format", "sentence-transformers"]
    assert main(arguments) == 0
    return out


@pytest.fixture(scope="module")
def encoder(encoder_folder):
    return VideoTextEncoder.from_pretrained(encoder_folder, device="cpu")


@pytest.fixture(scope="module")
def dual(folder):
    path = str(folder / "dual_encoder")
    return library.SentenceTransformer(path, trust_remote_code=True, device="cpu")


@pytest.fixture(scope="module")
def cross(folder):
    path = str(folder / "cross_encoder")
    return library.CrossEncoder(path, trust_remote_code=True, device="cpu")


def test_texts_and_videos_get_the_encoders_vectors(dual, encoder, clips):
    paths = [str(path) for path in clips]
    videos, texts = encoder.encode_video(clips), encoder.encode_text(TEXTS)
    np.testing.assert_allclose(dual.encode(TEXTS), texts, atol=1e-6)
    np.testing.assert_allclose(dual.encode(paths), videos, atol=1e-6)
    np.testing.assert_allclose(dual.encode([{"video": p} for p in paths]), videos, atol=1e-6)
    np.testing.assert_allclose(dual.encode(paths[0], batch_size=1), videos[0], atol=1e-6)
    frames = np.random.default_rng(0).integers(0, 256, (6, 40, 30, 3), dtype=np.uint8)
    want = encoder.encode_video([frames])
    for item in (frames, torch.from_numpy(frames), {"video": frames}):
        np.testing.assert_allclose(dual.encode([item]), want, atol=1e-6)
    similarity = dual.similarity(dual.encode(TEXTS), dual.encode(paths))
    np.testing.assert_allclose(similarity, texts @ videos.T, atol=1e-5)
    assert dual.get_embedding_dimension() == 8


@pytest.mark.slow
def test_transformers_does_not_take_the_folder_for_one_of_its_own_models(folder):
    """Its tokenizer is read where nothing has told transformers of vmm's types."""
    code = f"""
from sentence_transformers import SentenceTransformer
SentenceTransformer({str(folder / "dual_encoder")!r}, trust_remote_code=True).encode(["a circle"])
import sys
assert "vmm.export.auto_model" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "model of type" not in done.stderr, done.stderr


def test_an_evaluator_of_the_library_runs_unchanged(dual, encoder, clips):
    from sentence_transformers.sentence_transformer.evaluation import (
        InformationRetrievalEvaluator,
    )

    names = [str(number) for number in range(3)]
    evaluator = InformationRetrievalEvaluator(
        dict(zip(names, TEXTS, strict=True)),
        dict(zip(names, map(str, clips), strict=True)),
        {name: {name} for name in names},
        accuracy_at_k=[1],
        precision_recall_at_k=[1],
        mrr_at_k=[3],
        ndcg_at_k=[3],
        map_at_k=[3],
        name="clips",
        write_csv=False,
    )
    scores = encoder.encode_text(TEXTS) @ encoder.encode_video(clips).T
    right = (scores.argmax(1) == np.arange(3)).mean()
    assert evaluator(dual)["clips_cosine_accuracy@1"] == pytest.approx(right)


def test_pairs_get_the_encoders_scores(cross, encoder, clips):
    paths = [str(path) for path in clips]
    want = encoder.score(TEXTS, clips)
    pairs = list(zip(TEXTS, paths, strict=True))
    np.testing.assert_allclose(cross.predict(pairs), want, atol=1e-5)
    np.testing.assert_allclose(cross.predict([p[::-1] for p in pairs]), want, atol=1e-5)
    ranked = cross.rank(TEXTS[0], paths)
    (one,) = encoder.score_all(TEXTS[:1], clips)
    assert [hit["corpus_id"] for hit in ranked] == list(np.argsort(-one))
    assert ranked[0]["score"] == pytest.approx(one.max(), abs=1e-5)
    cross[0].by = "matching"
    try:
        want = encoder.score(TEXTS, clips, by="matching")
        np.testing.assert_allclose(cross.predict(pairs), want, atol=1e-5)
    finally:
        cross[0].by = "mixture"


def test_each_folder_is_an_encoder_folder(folder, encoder, clips):
    for name in ("dual_encoder", "cross_encoder"):
        loaded = VideoTextEncoder.from_pretrained(folder / name)
        assert loaded.fingerprint == encoder.fingerprint
        assert np.array_equal(loaded.encode_video(clips), encoder.encode_video(clips))


def test_saving_copies_and_a_trained_model_is_not_saved(dual, folder, encoder_folder, tmp_path):
    out = tmp_path / "saved"
    dual.save_pretrained(str(out), create_model_card=False)
    assert read_folder(out)[1] == read_folder(encoder_folder)[1]
    again = library.SentenceTransformer(str(out), trust_remote_code=True, device="cpu")
    assert np.array_equal(again.encode(TEXTS), dual.encode(TEXTS))
    with torch.no_grad():
        next(again.parameters()).add_(1)
    with pytest.raises(ValueError, match="trained since the export"):
        again.save_pretrained(str(tmp_path / "more"))


def test_mistakes_are_explained(dual, cross, clips, tmp_path):
    with pytest.raises(ValueError, match="mixes texts and videos"):
        dual.encode(["a circle", clips[0]])
    with pytest.raises(ValueError, match="no pair of a caption and a video"):
        cross.predict([("a circle", "another")])
    (tmp_path / "x.mp4").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cannot read .*x\.mp4"):
        dual.encode([str(tmp_path / "x.mp4")])


@pytest.mark.parametrize(
    "item",
    [
        "gone.mp4",
        "my clip.MOV",
        "/data/videos/a",
        "./clips/b.webm",
        "https://host/a",
        "~/c",
        "d.gif",
    ],
)
def test_a_path_without_a_file_is_not_embedded_as_text(dual, cross, item):
    with pytest.raises(ValueError, match=f"there is no file '{item}'; check the path"):
        dual.encode([item])
    with pytest.raises(ValueError, match=f"there is no file '{item}'; check the path"):
        cross.predict([("a red circle", item)])


def test_captions_that_look_a_little_like_paths_are_captions(dual, encoder):
    captions = [
        "a circle and/or a cross", "a red circle ...", "/ a slash", "5 km/h", "red. circle", "",
        "a" * 300, "word " * 400, "a \0 b", "half a pair \ud83d",
    ]  # fmt: skip
    known = [text for text in captions if "\ud83d" not in text]
    np.testing.assert_allclose(dual.encode(known), encoder.encode_text(known), atol=1e-6)
    assert not any(map(_is_video, captions))


def test_frames_in_memory_get_the_vector_of_their_file(dual, encoder):
    frames = np.random.default_rng(0).integers(0, 256, (6, 40, 30, 3), dtype=np.uint8)
    second = torch.from_numpy(frames).permute(0, 3, 1, 2)
    want = encoder.encode_video([frames])
    (ready,) = encoder.load_videos([frames])
    for item in (second, second.float() / 255, ready):
        np.testing.assert_allclose(dual.encode([{"video": item}]), want, atol=1e-6)
    with pytest.raises(ValueError, match="floating frames lie in 0 to 1"):
        dual.encode([{"video": second.float()}])


def test_vectors_that_are_no_numbers_are_refused(dual, cross, clips):
    for module in (dual, cross):
        module[0].model.vision_proj.weight.data[0, 0] = np.nan
        module[0].model.itm_head.bias.data[1] = np.nan
    try:
        with pytest.raises(ValueError, match="row 0 of a batch gives NaN or infinity"):
            dual.encode([str(clips[0])])
        with pytest.raises(ValueError, match="row 0 of a batch gives NaN or infinity"):
            cross.predict([("a", str(clips[0]))])
    finally:
        for module in (dual, cross):
            module[0].model.vision_proj.weight.data[0, 0] = 0.0
            module[0].model.itm_head.bias.data[1] = 0.0


def test_a_missing_package_is_named(encoder_folder, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "vmm.export.sentence_modules", raising=False)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match=r'pip install "vmm-video\[sentence-transformers\]"'):
        main([str(encoder_folder), str(tmp_path / "out"), "--format", "sentence-transformers"])
    assert not list(tmp_path.iterdir())
