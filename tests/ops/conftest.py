import pytest
import torch

INTERPRETER = "TRITON_INTERPRET"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Where Triton is interpreted, tests of much that have a marker are slow with it."""
    for item in items:
        backend = getattr(item, "callspec", None) and item.callspec.params.get("backend")
        if backend == "triton" and item.get_closest_marker("slow_interpreted"):
            item.add_marker("slow")


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
