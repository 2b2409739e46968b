import pytest

from tests.export.runs import write_run
from vmm.export.command import main


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    """A real encoder, tiny and not trained; read only."""
    folder = tmp_path_factory.mktemp("exported")
    write_run(folder / "run", seed=0)
    assert main([str(folder / "run"), str(folder / "encoder")]) == 0
    return folder / "encoder"


@pytest.fixture(scope="session")
def onnx_folder(encoder_folder, tmp_path_factory):
    """The same as ONNX files."""
    pytest.importorskip("onnxscript")
    out = tmp_path_factory.mktemp("onnx") / "out"
    assert main([str(encoder_folder), str(out), "--format", "onnx"]) == 0
    return out
