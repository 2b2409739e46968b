import subprocess
import sys

import numpy as np
import pytest
import torch

from vmm.export import program_files
from vmm.export.command import main
from vmm.export.encoder import VideoTextEncoder
from vmm.export.folder import read_folder


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(program_files.shutil, "which", lambda _: None)


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
import sys, torch, vmm.ops.bidirectional, vmm.ops.causal_conv
tower = torch.export.load({str(out / "video_4_frames.pt2")!r}).module()
video = torch.load({str(tmp_path / "video.pt")!r})
rows = [tower(video), torch.cat([tower(x[None]) for x in video])]
assert not any(name.startswith("vmm.models") for name in sys.modules)
torch.save(rows, {str(tmp_path / "rows.pt")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    for rows in torch.load(tmp_path / "rows.pt"):
        np.testing.assert_allclose(rows.numpy(), encoder.encode_video(clips), atol=1e-5)
    tower = torch.export.load(out / "text.pt2").module()
    for texts in (["red"], ["a red circle moves left", "a", "red"]):
        got = tower(*encoder.model.text_encoder.tokenize(texts))
        np.testing.assert_allclose(got.numpy(), encoder.encode_text(texts), atol=1e-5)


def test_a_program_that_differs_is_refused(encoder_folder, tmp_path, no_compiler, monkeypatch):
    parts = read_folder(encoder_folder)[0]
    parts.model.requires_grad_(False)
    right = program_files.expected
    monkeypatch.setattr(program_files, "expected", lambda *x: right(*x) + 1e-4)
    with pytest.raises(ValueError, match=r"differs from the model by \S+, more"):
        program_files.write_programs(parts, tmp_path, [4])


@pytest.mark.slow
@pytest.mark.skipif(program_files.shutil.which("c++") is None, reason="no C++ compiler")
def test_compiled_programs(encoder_folder, clips, tmp_path):
    parts = read_folder(encoder_folder)[0]
    parts.model.requires_grad_(False)
    differences = program_files.write_programs(parts, tmp_path, [4])
    assert set(differences) == {path.name for path in tmp_path.glob("*.pt2")}
    assert "video_4_frames.compiled.pt2" in differences and "text.compiled.pt2" in differences
    encoder = VideoTextEncoder.from_pretrained(encoder_folder, device="cpu")
    run = torch._inductor.aoti_load_package(str(tmp_path / "video_4_frames.compiled.pt2"))
    video = torch.stack(list(encoder.load_videos(clips)))
    for rows in (run(video), torch.cat([run(x[None]) for x in video])):
        np.testing.assert_allclose(rows.numpy(), encoder.encode_video(clips), atol=1e-5)
