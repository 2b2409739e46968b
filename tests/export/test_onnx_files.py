import importlib.util
import json
import sys

import numpy as np
import pytest
import torch

from vmm.export.command import main
from vmm.export.encoder import VideoTextEncoder
from vmm.export.folder import read_folder
from vmm.export.onnx_files import check_onnx, write_tower
from vmm.export.programs import example_inputs, video_name
from vmm.models.scan_order import ST_V1

pytestmark = pytest.mark.slow

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def parts(encoder_folder):
    return read_folder(encoder_folder)[0]


@pytest.fixture(scope="module")
def folder(encoder_folder, tmp_path_factory):
    """4 frames are 17 tokens, a chunk of the scan and one more; 9 make 37."""
    out = tmp_path_factory.mktemp("onnx") / "out"
    arguments = [str(encoder_folder), str(out), "--format", "onnx", "--num-frames"]
    assert main([*arguments, "9", "4", "9"]) == 0
    return out


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.smoke
def test_writes_a_file_per_tower_and_number_of_frames(folder, encoder_folder):
    names = {path.name for path in folder.glob("*.onnx")}
    assert names == {f"{video_name(n)}.onnx" for n in (4, 9)} | {"text.onnx"}
    name = "video_preprocessor_config.json"
    assert (folder / name).read_bytes() == (encoder_folder / name).read_bytes()


@pytest.mark.parametrize("count", [4, 9])
def test_video_tower_for_any_number_of_clips(folder, encoder_folder, count):
    encoder = VideoTextEncoder.from_pretrained(encoder_folder, device="cpu")
    tower = session(folder / f"{video_name(count)}.onnx")
    rng = np.random.default_rng(0)
    for clips in (1, 2, 5):
        frames = [rng.integers(0, 256, (count, 40, 30, 3), dtype=np.uint8) for _ in range(clips)]
        video = torch.stack(list(encoder.load_videos(frames, num_frames=count)))
        got = tower.run(None, {"video": video.numpy()})[0]
        want = encoder.encode_video(frames, num_frames=count)
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_text_tower_for_captions_of_any_length(folder, encoder_folder):
    encoder = VideoTextEncoder.from_pretrained(encoder_folder, device="cpu")
    tower = session(folder / "text.onnx")
    for texts in (["red"], ["a red circle moves left", "a"], ["a"] * 3):
        tokens = encoder.model.text_encoder.tokenize(texts)
        feed = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
        got = tower.run(None, {name: x.numpy() for name, x in feed.items()})[0]
        np.testing.assert_allclose(got, encoder.encode_text(texts), atol=1e-5)


def test_every_operator_is_a_standard_one(folder):
    def domains(nodes):
        for node in nodes:
            yield node.domain
            for attribute in node.attribute:
                yield from domains(attribute.g.node)

    for path in folder.glob("*.onnx"):
        model = onnx.load(path)
        used = set(domains(model.graph.node))
        used |= {d for function in model.functions for d in domains(function.node)}
        assert used == {""} | {function.domain for function in model.functions}, path.name


def test_a_file_of_another_model_is_refused(folder, another_run, tmp_path):
    main([str(another_run), str(tmp_path / "other")])
    other = read_folder(tmp_path / "other")[0]
    for name, inputs in example_inputs(other, [4]).items():
        with pytest.raises(ValueError, match="differs from the model by"):
            check_onnx(other, name, inputs, folder / f"{name}.onnx")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_file_with_a_weight_that_is_no_number_is_refused(folder, parts, tmp_path, value):
    name = video_name(4)
    model = onnx.load(folder / f"{name}.onnx")
    for weight in model.graph.initializer:
        numbers = onnx.numpy_helper.to_array(weight).copy()
        if numbers.dtype == np.float32 and numbers.ndim == 2:
            numbers[0, 0] = value
            weight.CopyFrom(onnx.numpy_helper.from_array(numbers, weight.name))
            break
    onnx.save(model, tmp_path / "broken.onnx")
    inputs = example_inputs(parts, [4])[name]
    with pytest.raises(ValueError, match=r"16 of the 16 numbers that broken\.onnx gives are NaN"):
        check_onnx(parts, name, inputs, tmp_path / "broken.onnx")


def test_impossible_numbers_of_frames_are_refused(encoder_folder, tmp_path):
    for count in ("0", "-3"):
        with pytest.raises(SystemExit, match="2"):
            arguments = [str(encoder_folder), str(tmp_path / "out"), "--format", "onnx"]
            main([*arguments, f"--num-frames={count}"])
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(encoder_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r'pip install "vmm-video\[onnx\]"'):
        main([str(encoder_folder), str(tmp_path / "out"), "--format", "onnx"])
    assert not list(tmp_path.iterdir())


def example(root):
    spec = importlib.util.spec_from_file_location("onnx_video", root / "examples/onnx_video.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_needs_numpy_av_and_onnxruntime_only(root, folder, encoder_folder, clips):
    text = (root / "examples/onnx_video.py").read_text()
    assert "torch" not in [line.split()[1] for line in text.splitlines() if "import" in line[:7]]
    encoder = VideoTextEncoder.from_pretrained(encoder_folder)
    for count in (None, 9):
        got = example(root).main(folder, clips, count)
        want = encoder.encode_video(clips, num_frames=count)
        np.testing.assert_allclose(got, want, atol=2e-3)  # single pixels round the other way


def test_the_example_takes_the_frames_that_there_are(root, folder, tmp_path):
    frames_of = example(root).frames_of
    assert [frames_of(folder, *asked) for asked in ((None, 4), (None, 16), (9, 4))] == [4, 4, 9]
    with pytest.raises(SystemExit, match=r"towers of 4, 9 frames, none of 16; .*--num-frames 16"):
        frames_of(folder, 16, 4)
    with pytest.raises(SystemExit, match="no video tower"):
        frames_of(tmp_path, None, 4)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(48, 64), (100, 171), (50, 37), (64, 64)])
def test_the_example_sees_the_pixels_of_training(root, parts, size, antialias):
    from vmm.data.transforms import ClipSettings, eval_transform

    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    clip = ClipSettings(2, 64, antialias=antialias)
    settings = {name: getattr(clip, name) for name in ("image_size", "mean", "std", "antialias")}
    got = example(root).to_input(frames, settings | {"fit": "squash", "sampling": "random"})
    want = eval_transform(torch.from_numpy(frames).permute(0, 3, 1, 2), clip).numpy()
    difference = np.abs(got - want)
    assert difference.max() < 1.01 / 255 / 0.224  # one of 256 steps
    assert (difference > 1e-5).mean() < 1 / 100


def test_the_example_says_what_it_cannot_do(root, folder, clips, tmp_path):
    settings = json.loads((folder / "video_preprocessor_config.json").read_text())
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    with pytest.raises(SystemExit, match="middle of segments"):
        example(root).to_input(frames, settings | {"fit": "crop"})


def test_a_video_tower_that_scans_along_time(encoder_folder, tmp_path):
    parts = read_folder(encoder_folder)[0]
    encoder = parts.model.requires_grad_(False).video_encoder
    encoder.layers, encoder.block_orders = encoder.layers[:1], [ST_V1]
    inputs = example_inputs(parts, [4])[video_name(4)]
    path = tmp_path / "video.onnx"
    assert write_tower(parts, video_name(4), inputs, path) < 1e-5
    encoder.block_orders = []
    encoder.layers = encoder.layers[:0]
    with pytest.raises(ValueError, match="differs from the model"):
        check_onnx(parts, video_name(4), inputs, path)
