import os
import stat
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vmm.models.weight_files import write_pickle, write_tensors


@pytest.mark.skipif(sys.platform == "win32", reason="files have no mode there")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_others_may_read_weights_as_any_new_file(mask, mode, tmp_path):
    before = os.umask(mask)
    try:
        write_tensors({"a": torch.arange(3)}, tmp_path / "x.safetensors", {"format": "pt"})
        assert os.umask(mask) == mask  # it is left as it was
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == mode
    assert torch.equal(load_file(tmp_path / "x.safetensors")["a"], torch.arange(3))


def test_a_drive_without_modes_gets_the_weights(monkeypatch, tmp_path):
    def refuse(path, mode):
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    write_tensors({"a": torch.arange(3)}, tmp_path / "x.safetensors")
    assert torch.equal(load_file(tmp_path / "x.safetensors")["a"], torch.arange(3))


def test_a_full_disk_is_an_error_of_the_system(monkeypatch, tmp_path):
    said = "Error while serializing: I/O error: No space left on device (os error 28)"

    def full(*_):
        raise SafetensorError(said)

    monkeypatch.setattr("vmm.models.weight_files.save_file", full)
    with pytest.raises(OSError, match=r"No space left on device: .*x\.safetensors") as found:
        write_tensors({"a": torch.arange(3)}, tmp_path / "x.safetensors")
    assert found.value.errno == 28
    said = "Error while serializing: a tensor is not what it seems"
    with pytest.raises(SafetensorError, match="not what it seems"):
        write_tensors({"a": torch.arange(3)}, tmp_path / "x.safetensors")


def test_a_pickle_for_a_full_disk_is_an_error_of_the_system_too(monkeypatch, tmp_path):
    def full(*_):
        raise RuntimeError("inline_container.cc: unexpected pos 937216 vs 937104")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left on device: .*x\.pth"):
        write_pickle({"a": torch.zeros(3)}, tmp_path / "x.pth")


def test_vmm_writes_weights_in_one_place(root):
    for path in (root / "vmm").rglob("*.py"):
        if path.name != "weight_files.py":
            text = path.read_text("utf-8")
            assert "save_file(" not in text and "torch.save(" not in text, path
