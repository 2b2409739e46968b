import pytest
import torch

INTERPRETER = "TRITON_INTERPRET"


@pytest.fixture
def interpreter(monkeypatch):
    """Let Triton kernels run on the CPU where there is no GPU."""
    if not torch.cuda.is_available():
        monkeypatch.setenv(INTERPRETER, "1")


@pytest.fixture(autouse=True)
def _interpreter_for_the_triton_backend(request):
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and callspec.params.get("backend") == "triton":
        request.getfixturevalue("interpreter")
