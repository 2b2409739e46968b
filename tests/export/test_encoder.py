import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.global_state import STATES
from vmm.data.decode import decode_video
from vmm.data.transforms import ClipSettings, eval_transform
from vmm.export.command import main as export_main
from vmm.export.encoder import VideoTextEncoder
from vmm.export.frames import load_clip
from vmm.models.match_weight import write_match_weight
from vmm.ops.similarity import MATCH_WEIGHT

TEXTS = ["A red circle", "a circle moves left!", "red"]
HEAVY = ("lightning", "open_clip", "webdataset", "jsonargparse", "matplotlib", "torchvision")


@pytest.fixture(scope="module")
def encoder(encoder_folder):
    return VideoTextEncoder.from_pretrained(encoder_folder, device="cpu")


def frames_of(path):
    """All frames, by a decode of everything."""
    return decode_video(path.read_bytes(), lambda times: range(len(times)))


def middle(length, count):
    edges = np.linspace(0, length, min(count, length) + 1).astype(int)
    chosen = [int(a + b - 1) // 2 for a, b in itertools.pairwise(edges)]
    return chosen + chosen[-1:] * (count - len(chosen))


def trained_vectors(model, clips, count=4):
    """What the training-time model gives, step by step."""
    rows = []
    for path in clips:
        frames = frames_of(path)
        pixels = torch.from_numpy(frames[middle(len(frames), count)]).permute(0, 3, 1, 2)
        video = eval_transform(pixels, ClipSettings(count, 32)).unsqueeze(0)
        with torch.no_grad():
            per_frame = model.project_video(model.encode_video(video).pooled)
        rows.append(F.normalize(F.normalize(per_frame, dim=-1).mean(1), dim=-1))
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("count", [1, 4, 9])
def test_videos_get_the_vectors_of_training(encoder, trained, clips, count):
    got = encoder.encode_video(clips, num_frames=count)
    want = trained_vectors(trained[1], clips, count)
    assert got.dtype == np.float32 and got.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert np.abs(want - want[0])[1:].max() > 0.01  # the clips differ


def test_texts_get_the_vectors_of_training(encoder, trained):
    model = trained[1]
    with torch.no_grad():
        for text, row in zip(TEXTS, encoder.encode_text(TEXTS), strict=True):
            tokens = model.text_encoder.tokenize([text])
            want = F.normalize(model.project_text(model.encode_text(*tokens).pooled), dim=-1)
            np.testing.assert_allclose(row, want[0].numpy(), atol=1e-6)


def test_a_single_text_gets_a_single_vector(encoder):
    for text in ("A red circle", "", "red"):
        got = encoder.encode_text(text)
        assert got.shape == (8,) and np.array_equal(got, encoder.encode_text([text])[0])


def scores_of_training(model, video):
    """The matching head's logits of all ``TEXTS`` with clips (B, T, C, H, W): (texts, B)."""
    with torch.no_grad():
        text = model.text_encoder.tokenize(TEXTS)
        states = model.encode_text(*text).tokens
        columns = []
        for tokens in model.encode_video(video).tokens:
            seen = tokens.expand(len(TEXTS), *tokens.shape)
            fused = model.fuse(states, text.attention_mask, seen)
            columns.append(model.match_logits(fused)[:, 1])
    return torch.stack(columns, 1).numpy()


@pytest.mark.parametrize("by", ["mixture", "matching"])
def test_pairs_get_the_scores_of_training(encoder, trained, clips, by):
    video = torch.stack(list(encoder.load_videos(clips)))
    want = scores_of_training(trained[1], video)
    if by == "mixture":
        cosines = encoder.encode_text(TEXTS) @ encoder.encode_video(clips).T
        want = cosines / encoder.model.temperature.item() + MATCH_WEIGHT * want
    chosen = {} if by == "mixture" else {"by": by}
    got = encoder.score_all(TEXTS, clips, **chosen)
    assert got.shape == (3, 3) and got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.abs(want - want.T).max() > 0.01  # rows are texts
    for size in (1, 2):
        again = encoder.score_all(TEXTS, clips, batch_size=size, **chosen)
        np.testing.assert_allclose(again, want, atol=1e-5)
        pairs = encoder.score(TEXTS, clips, batch_size=size, **chosen)
        np.testing.assert_allclose(pairs, want.diagonal(), atol=1e-5)
    some = encoder.score_all(TEXTS[:1], clips, **chosen)
    np.testing.assert_allclose(some, want[:1], atol=1e-5)


def test_no_pairs_no_scores(encoder, clips):
    assert encoder.score([], []).shape == (0,)
    assert encoder.score_all(TEXTS, []).shape == (3, 0)
    assert encoder.score_all([], clips).shape == (0, 3)


def test_the_weight_of_the_matching_head_comes_with_the_run(trained, clips, tmp_path):
    run, folder = tmp_path / "run", tmp_path / "encoder"
    shutil.copytree(trained[0], run)
    usual = VideoTextEncoder.from_pretrained(export_to(run, tmp_path / "usual"), device="cpu")
    assert usual.model.match_weight == MATCH_WEIGHT
    write_match_weight(run, 1.5, {"clips": 3})
    encoder = VideoTextEncoder.from_pretrained(export_to(run, folder), device="cpu")
    assert encoder.model.match_weight == 1.5
    assert encoder.fingerprint == usual.fingerprint  # no vector is another
    logits = encoder.score(TEXTS, clips, by="matching")
    difference = encoder.score(TEXTS, clips) - usual.score(TEXTS, clips)
    np.testing.assert_allclose(difference, (1.5 - MATCH_WEIGHT) * logits, atol=1e-5)
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("match_weight") == 1.5
    (folder / "config.json").write_text(json.dumps(config))  # as older versions wrote it
    assert VideoTextEncoder.from_pretrained(folder).model.match_weight == MATCH_WEIGHT
    for odd in ("much", None, -1, True, 1e999):
        (folder / "config.json").write_text(json.dumps(config | {"match_weight": odd}))
        with pytest.raises(ValueError, match=r"match_weight .* must be a finite number.*export"):
            VideoTextEncoder.from_pretrained(folder)


def export_to(run, folder):
    assert export_main([str(run), str(folder)]) == 0
    return folder


def test_one_video_one_vector_however_it_is_given(encoder, clips):
    want = encoder.encode_video(clips)
    again = encoder.encode_video(clips)
    assert np.array_equal(want, again)
    for videos in (
        [str(path) for path in clips],
        [path.read_bytes() for path in clips],
        [frames_of(path) for path in clips],
    ):
        np.testing.assert_allclose(encoder.encode_video(videos), want, atol=1e-6)
    for size in (1, 2, 7):
        got = encoder.encode_video(clips * 2, batch_size=size)
        np.testing.assert_allclose(got, np.concatenate([want, want]), atol=1e-6)
    backwards = encoder.encode_video(clips[::-1])[::-1]
    np.testing.assert_allclose(backwards, want, atol=1e-6)


def test_frames_per_second(encoder, clips):
    """20 frames at 10 a second: 4 frames at 5 a second span 0.6 s in the middle, from 0.65 s on."""
    got = encoder.encode_video(clips[2:], fps=5)
    chosen = frames_of(clips[2])[[6, 8, 10, 12]]
    np.testing.assert_allclose(got, encoder.encode_video([chosen]), atol=1e-6)
    assert np.abs(got - encoder.encode_video(clips[2:])).max() > 1e-4


@pytest.mark.parametrize(
    "odd", ["", " ", "\0", "\ud83d", "red \udcff", "\U0001f600" * 9, "a" * 100_000]
)
def test_odd_texts_are_encoded_like_others(encoder, clips, odd):
    alone, beside = encoder.encode_text([odd]), encoder.encode_text(["red", odd])[1:]
    assert np.isfinite(alone).all() and np.linalg.norm(alone) == pytest.approx(1)
    np.testing.assert_allclose(alone, beside, atol=1e-5)
    assert np.isfinite(encoder.score([odd], clips[:1])).all()


def test_half_a_pair_is_the_sign_for_what_was_lost(encoder):
    half, sign, pair, smile = encoder.encode_text(
        ["red \ud83d", "red \ufffd", "red \ud83d\ude00", "red \U0001f600"]
    )
    np.testing.assert_array_equal(half, sign)
    np.testing.assert_array_equal(pair, smile)


def test_nothing_gives_nothing(encoder):
    assert encoder.encode_video([]).shape == encoder.encode_text([]).shape == (0, 8)


def test_progress_is_shown_on_request(encoder, clips, capsys):
    encoder.encode_video(clips)
    assert capsys.readouterr().err == ""
    encoder.encode_video(clips, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_bad_videos_are_named(encoder, clips, tmp_path):
    broken, empty = tmp_path / "broken.mp4", tmp_path / "empty.mp4"
    broken.write_bytes(clips[0].read_bytes()[:200])
    empty.write_bytes(b"")
    for path, reason in ((broken, "unreadable"), (empty, "0 bytes"), (tmp_path / "no", "No such")):
        with pytest.raises(ValueError, match=rf"cannot read .*{path.name}.*{reason}"):
            encoder.encode_video([clips[0], path])
    with pytest.raises(ValueError, match="cannot read video 1: empty"):
        encoder.encode_video([clips[0], b""])
    with pytest.raises(ValueError, match=r"cannot read .*directory"):
        encoder.encode_video([tmp_path])


def test_what_never_ends_is_not_read(encoder, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", "/dev/zero"):
        with pytest.raises(ValueError, match=f"cannot read {path}: it is a pipe or device"):
            encoder.encode_video([path])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, c: e.encode_video(str(c[0])), "a single str; give a list"),
        (lambda e, c: e.encode_text(["red", None]), "text 1 is a NoneType; give strings"),
        (lambda e, c: e.score([b"red"], c), "text 0 is a bytes; give strings"),
        (lambda e, c: e.encode_video(np.zeros((4, 8, 8, 3), np.uint8)), "a single ndarray"),
        (lambda e, c: e.encode_video([np.zeros((0, 8, 8, 3), np.uint8)]), "uint8"),
        (lambda e, c: e.encode_video([np.zeros((4, 8, 8, 3), np.uint8)], fps=2), "no times"),
        (lambda e, c: e.encode_video(c, batch_size=0), "batch_size 0"),
        (lambda e, c: e.encode_video(c, num_frames=-1), "num_frames -1"),
        (lambda e, c: e.encode_video(c, num_frames=0), "num_frames 0"),
        (lambda e, c: e.score_all(["a"], c, num_frames=0), "num_frames 0"),
        (lambda e, c: e.encode_video(c, fps=0), "fps"),
        (lambda e, c: e.encode_video(c, fps=-1), "fps"),
        (lambda e, c: e.encode_video(c, fps=float("inf")), "fps inf .*at most 1000"),
        (lambda e, c: e.encode_long_video(c[0], fps=float("inf")), "fps inf .*at most 1000"),
        (lambda e, c: e.encode_long_video(c[0], fps=1e9), "fps 1000000000.0 .*at most 1000"),
        (lambda e, c: e.encode_video(c, num_frames=2.0), "num_frames 2.0 .*whole numbers"),
        (lambda e, c: e.encode_video(c, num_frames=True), "num_frames True .*whole numbers"),
        (lambda e, c: e.encode_text(text for text in TEXTS), "a generator; give a list"),
        (lambda e, c: e.encode_text({"red": 1}), "a dict; give a list"),
        (lambda e, c: e.encode_video(iter(c)), "a list_iterator; give a list"),
        (lambda e, c: e.encode_video(set(c)), "a set; give a list, whose order"),
        (lambda e, c: next(e.load_videos(set(c))), "a set; give a list, whose order"),
        (lambda e, c: e.score({"a", "b", "c"}, c), "a set; give a list, whose order"),
        (lambda e, c: e.encode_video([c[0], None]), "video 1 is a NoneType; give a file's path"),
        (lambda e, c: e.encode_video([list(np.zeros((4, 8, 8, 3)))]), "video 0 is a list; give"),
        (lambda e, c: e.encode_video([bytearray(9)]), "video 0 is a bytearray; give a file's"),
        (lambda e, c: e.encode_video([torch.zeros(4, 8, 8, 3, device="meta")]), "give frames as"),
        (lambda e, c: e.score(["a", "b"], c), "2 texts do not pair with 3 .*or score_all"),
        (lambda e, c: e.score(["a"], c), "1 texts do not pair with 3 videos"),
        (lambda e, c: e.score(["a"], c[:1], by="itm"), "by 'itm' must be one of mixture, matching"),
    ],
)
def test_mistakes_are_explained(encoder, clips, call, message):
    with pytest.raises(ValueError, match=message):
        call(encoder, clips)


def in_memory(frames):
    """One video (T, H, W, 3) uint8 in the ways in which libraries give it."""
    last = torch.from_numpy(frames)
    second = last.permute(0, 3, 1, 2)
    unit = second.float() / 255
    return {
        "NumPy, PyAV, decord": frames,
        "torchvision.io.read_video": last,
        "torchcodec, torchvision with TCHW": second.contiguous(),
        "not contiguous": second,
        "NumPy, colours second": second.numpy(),
        "0 to 1": unit,
        "0 to 1, colours last": unit.permute(0, 2, 3, 1),
        "0 to 1, NumPy": unit.numpy(),
        "0 to 1, float64": second.double() / 255,
        "0 to 1, float16": unit.half(),
        "with a gradient": unit.clone().requires_grad_(),
        "backwards twice, a view": frames[::-1].copy()[::-1],
        "from right to left, a view": np.ascontiguousarray(frames[:, :, ::-1])[:, :, ::-1],
        "other byte order": unit.numpy().astype(">f4"),
        "sparse": unit.to_sparse(),
    }


@pytest.mark.parametrize("form", in_memory(np.zeros((1, 4, 4, 3), np.uint8)))
def test_frames_in_memory_get_the_vector_of_their_file(encoder, clips, form):
    videos = [in_memory(frames_of(path))[form] for path in clips]
    np.testing.assert_allclose(encoder.encode_video(videos), encoder.encode_video(clips), atol=1e-6)
    scores = encoder.score(TEXTS, videos)
    np.testing.assert_allclose(scores, encoder.score(TEXTS, clips), atol=1e-5)


def test_prepared_clips_are_taken_as_they_are_and_only_those(encoder, clips):
    ready = list(encoder.load_videos(clips))
    want = encoder.encode_video(clips)
    assert np.array_equal(encoder.encode_video(ready), want)
    for computed in (ready[0].clone(), ready[0] * 1, torch.stack(ready)[0]):
        assert type(computed) is torch.Tensor
        with pytest.raises(ValueError, match=r"numbers from -\S+ to \S+; .* as `load_videos` gave"):
            encoder.encode_video([computed])


@pytest.mark.parametrize("other", [{"image_size": 48}, {"mean": (0.5,) * 3}, {"fit": "crop"}])
def test_clips_prepared_for_another_encoder_are_refused(encoder, clips, other):
    own, another = (load_clip(clips[0], 0, replace(encoder.clip, **o)) for o in ({}, other))
    assert len(encoder.encode_video([pickle.loads(pickle.dumps(own))])) == 1
    for clip in (another, pickle.loads(pickle.dumps(another))):
        with pytest.raises(ValueError, match="video 1 was prepared for another encoder"):
            encoder.encode_video([own, clip])


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((3, 4, 8, 9), torch.uint8, r"video 1 is \(3, 4, 8, 9\) .*like \(C, T, H, W\): transpose"),
        ((4, 1, 8, 9), torch.uint8, r"give frames as \(T, H, W, 3\) or \(T, 3, H, W\)"),
        ((4, 8, 9, 4), torch.uint8, r"give frames as \(T, H, W, 3\) or \(T, 3, H, W\)"),
        ((4, 3, 8, 3), torch.uint8, "its colours may be second or last"),
        ((3, 8, 9), torch.uint8, "give frames as"),
        ((1, 4, 3, 8, 9), torch.float32, "a batch; give a list of its videos"),
        ((4, 3, 8, 0), torch.uint8, "give frames as"),
        ((4, 3, 8, 9), torch.int64, "uint8 or floating from 0 to 1"),
        ((4, 3, 8, 9), torch.bool, "uint8 or floating from 0 to 1"),
        ((4, 3, 8, 9), torch.complex64, "uint8 or floating from 0 to 1"),
    ],
)
def test_frames_of_another_form_are_named(encoder, clips, shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        encoder.encode_video([clips[0], torch.zeros(shape, dtype=dtype)])


@pytest.mark.parametrize(
    ("value", "message"),
    [(255.0, "to 255; .* those in 0 to 255 are uint8"), (-0.1, "from -0.1"), (np.nan, "nan")],
)
def test_floating_frames_lie_in_0_to_1(encoder, value, message):
    frames = np.zeros((40, 8, 9, 3), np.float32)
    frames[1, 0, 0] = value  # of a frame that is not even looked at
    with pytest.raises(ValueError, match=message):
        encoder.encode_video([frames])


def test_vectors_that_are_no_numbers_are_refused_with_their_name(encoder_folder, clips):
    encoder = VideoTextEncoder.from_pretrained(encoder_folder, device="cpu")
    ready = list(encoder.load_videos(clips))
    ready[1][0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="video 1 gives NaN or infinity: the model"):
        encoder.encode_video(ready)
    with pytest.raises(ValueError, match="pair 1 gives NaN or infinity: the model"):
        encoder.score(TEXTS, ready)
    encoder.model.text_proj.bias.data[0] = np.inf
    with pytest.raises(ValueError, match=r"text 0 \('A red circle'\) gives NaN .*\(3 of 3 do\)"):
        encoder.encode_text(TEXTS)
    encoder.model.vision_proj.bias.data[0] = np.nan
    with pytest.raises(ValueError, match=r"0\.mp4 gives NaN or infinity \(3 of 3 do\)"):
        encoder.encode_video(clips, batch_size=2)
    with pytest.raises(ValueError, match=r"0\.mp4 gives NaN or infinity"):
        encoder.encode_long_video(clips[0])


@pytest.mark.slow
def test_the_core_dependencies_suffice_without_a_network(encoder_folder, clips):
    code = f"""
import socket, sys
for name in {HEAVY!r}:
    sys.modules[name] = None
def refuse(*_):
    raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
import vmm
assert not {{"torch", "numpy", "transformers"}} & set(sys.modules)
from vmm import VideoTextEncoder
encoder = VideoTextEncoder.from_pretrained({str(encoder_folder)!r})
videos = encoder.encode_video([{str(clips[0])!r}], progress=True)
print((encoder.encode_text(["a red circle"]) @ videos.T).shape)
print(encoder.score(["a red circle"], [{str(clips[0])!r}]).shape)
from transformers import AutoModel
auto = AutoModel.from_pretrained({str(encoder_folder)!r})
assert isinstance(auto, VideoTextEncoder)
assert (auto.encode_video([{str(clips[0])!r}]) == videos).all()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["(1,", "1)", "(1,)"]


@pytest.mark.parametrize(("tune", "precision"), [(True, "medium"), (False, "highest")])
def test_it_is_as_fast_as_inside_vmm_unless_the_process_is_to_be_left_alone(
    encoder_folder, monkeypatch, tune, precision
):
    monkeypatch.setattr("vmm.ops.tuning.cpu_matmul._relative_error", lambda: 0.0)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        VideoTextEncoder.from_pretrained(encoder_folder, device="cpu", tune=tune)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_vmm_offers_nothing_else():
    import vmm

    with pytest.raises(AttributeError, match="no attribute 'VideoTextEncodr'"):
        _ = vmm.VideoTextEncodr


def test_folders_come_from_the_hub_and_go_there(encoder_folder, clips, tmp_path, monkeypatch):
    import huggingface_hub

    shelf = {}

    class Api:
        def create_repo(self, name, **options):
            shelf[name] = options

        def upload_folder(self, repo_id, folder_path):
            shutil.copytree(folder_path, tmp_path / repo_id)
            return type("Commit", (), {"commit_url": f"hub/{repo_id}"})

    def download(name, **options):
        shelf["asked"] = options
        if not (tmp_path / name).is_dir():
            raise OSError("offline")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    encoder = VideoTextEncoder.from_pretrained(encoder_folder)
    assert encoder.push_to_hub("someone/model", private=True) == "hub/someone/model"
    assert shelf["someone/model"] == {"private": True, "exist_ok": True}
    fetched = VideoTextEncoder.from_pretrained("someone/model", revision="v1")
    assert shelf["asked"]["revision"] == "v1"
    assert np.array_equal(fetched.encode_video(clips), encoder.encode_video(clips))
    with pytest.raises(ValueError, match="the hub did not give a model of that name"):
        VideoTextEncoder.from_pretrained("nobody/nothing")
    with pytest.raises(ValueError, match="there is no folder"):
        VideoTextEncoder.from_pretrained("./nothing/at/all")


@pytest.mark.parametrize("state", STATES)
def test_settings_of_the_process_do_not_change_the_vectors(state, encoder, encoder_folder, clips):
    want = encoder.encode_video(clips), encoder.encode_text(TEXTS), encoder.score(TEXTS, clips)
    with STATES[state]():
        other = VideoTextEncoder.from_pretrained(encoder_folder, device="cpu")
        got = other.encode_video(clips), other.encode_text(TEXTS), other.score(TEXTS, clips)
        long = other.encode_long_video(clips[0])
    assert {p.dtype for p in other.model.parameters()} == {torch.float32}
    for a, b in zip(got, want, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(long.vector, encoder.encode_long_video(clips[0]).vector, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_gives_the_same_vectors(encoder, encoder_folder, clips):
    other = VideoTextEncoder.from_pretrained(encoder_folder, device="cuda")
    np.testing.assert_allclose(other.encode_video(clips), encoder.encode_video(clips), atol=1e-5)
    np.testing.assert_allclose(other.encode_text(TEXTS), encoder.encode_text(TEXTS), atol=1e-5)
