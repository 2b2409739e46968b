import subprocess
import sys

import numpy as np
import pytest
import torch

from vmm.export import program_files
from vmm.export.command import FORMATS, main
from vmm.export.encoder import VideoTextEncoder
from vmm.export.folder import read_folder
from vmm.export.formats import export
from vmm.export.programs import example_inputs, largest_difference, video_name

pytestmark = pytest.mark.slow


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(program_files.shutil, "which", lambda _: None)


@pytest.mark.smoke
def test_programs_run_in_a_process_without_the_model(encoder_folder, clips, tmp_path, no_compiler):
    out = tmp_path / "out"
    arguments = [str(encoder_folder), str(out), "--format", "pt2", "--num-frames", "4", "9"]
    assert main(arguments) == 0
    assert {path.name for path in out.glob("*.pt2")} == {
        "video_4_frames.pt2",
        "video_9_frames.pt2",
        "text.pt2",
    }
    encoder = VideoTextEncoder.from_pretrained(encoder_folder, device="cpu")
    video = torch.stack(list(encoder.load_videos(clips)))
    torch.save(video, tmp_path / "video.pt")
    code = f"""
import sys, torch, vmm.ops.scan.bidirectional, vmm.ops.conv.causal_conv
tower = torch.export.load({str(out / "video_4_frames.pt2")!r}).module()
video = torch.load({str(tmp_path / "video.pt")!r})
with torch.no_grad():  # torch 2.9 loads weights that want gradients
    rows = [tower(video), torch.cat([tower(x[None]) for x in video])]
assert not any(name.startswith("vmm.models") for name in sys.modules)
torch.save(rows, {str(tmp_path / "rows.pt")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    for rows in torch.load(tmp_path / "rows.pt"):
        np.testing.assert_allclose(rows.numpy(), encoder.encode_video(clips), atol=1e-5)
    tower = torch.export.load(out / "text.pt2").module()
    for texts in (["red"], ["a red circle moves left", "a", "red"]):
        got = tower(*encoder.model.text_encoder.tokenize(texts)).detach()
        np.testing.assert_allclose(got.numpy(), encoder.encode_text(texts), atol=1e-5)


def test_a_program_that_differs_is_refused(encoder_folder, tmp_path, no_compiler, monkeypatch):
    parts = read_folder(encoder_folder)[0]
    parts.model.requires_grad_(False)
    right = program_files.expected
    monkeypatch.setattr(program_files, "expected", lambda *x: right(*x) + 1e-4)
    with pytest.raises(ValueError, match=r"differs from the model by \S+, more"):
        program_files.write_programs(parts, tmp_path, [4])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_results_that_are_no_numbers_are_refused_whoever_gives_them(value, tmp_path):
    right = torch.full((2, 3), 0.5)
    broken = torch.tensor([[0.5, value, 0.5]] * 2)
    path = tmp_path / "video.pt2"
    assert largest_difference(path, right, right, "") == 0
    with pytest.raises(ValueError, match=r"2 of the 6 numbers that video\.pt2 gives are NaN"):
        largest_difference(path, broken, right, "")
    for got in (right, broken):
        with pytest.raises(ValueError, match="2 of the 6 numbers that the model gives are NaN"):
            largest_difference(path, got, broken, "")
    with pytest.raises(ValueError, match=r"gives \(1, 3\), the model \(2, 3\)"):
        largest_difference(path, right[:1], right, "")


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_model_with_a_weight_that_is_no_number_is_not_exported(
    encoder_folder, tmp_path, format_name
):
    parts = read_folder(encoder_folder)[0]
    parts.model.vision_proj.weight.data[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"vision_proj\.weight holds 1 NaN or infinite numbers"):
        export(parts, tmp_path / "out", format_name)
    assert not list(tmp_path.iterdir())


def test_packages_are_compiled_where_a_compiler_is(encoder_folder, tmp_path, monkeypatch):
    parts = read_folder(encoder_folder)[0]
    parts.model.requires_grad_(False)
    monkeypatch.setattr(program_files.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(program_files, "write_tower", lambda *_: 0.0)
    monkeypatch.setattr(program_files, "compile_tower", lambda *_: 0.0)
    assert set(program_files.write_programs(parts, tmp_path, [4])) == {
        f"{name}{ending}"
        for name in ("video_4_frames", "text")
        for ending in (".pt2", ".compiled.pt2")
    }


@pytest.mark.skipif(program_files.shutil.which("c++") is None, reason="no C++ compiler")
def test_a_compiled_package_computes_the_same(encoder_folder, clips, tmp_path):
    parts = read_folder(encoder_folder)[0]
    parts.model.requires_grad_(False)
    path, name = tmp_path / "video.pt2", video_name(4)
    inputs = example_inputs(parts, [4])[name]
    assert program_files.compile_tower(parts, name, inputs, path) < 1e-6
    encoder = VideoTextEncoder.from_pretrained(encoder_folder, device="cpu")
    run = torch._inductor.aoti_load_package(str(path))
    video = torch.stack(list(encoder.load_videos(clips)))
    for rows in (run(video), torch.cat([run(x[None]) for x in video])):
        np.testing.assert_allclose(rows.numpy(), encoder.encode_video(clips), atol=1e-5)
