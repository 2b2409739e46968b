import pytest
import torch

from vmm.ops.tuning import cpu_matmul


@pytest.fixture(autouse=True)
def restore_precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def onednn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)


def test_linear_layers_stay_float32():
    cpu_matmul.enable_fast_cpu_matmul()
    x, weight = torch.randn(100, 300), torch.randn(50, 300)
    exact = x.double() @ weight.double().t()
    error = (torch.nn.functional.linear(x, weight) - exact).abs().max() / exact.abs().max()
    assert error < 5e-6


def test_it_is_kept_where_the_product_is_exact(onednn, monkeypatch):
    monkeypatch.setattr(cpu_matmul, "_relative_error", lambda: 7e-7)
    assert "use oneDNN (checked: relative error 7.0e-07)" in cpu_matmul.enable_fast_cpu_matmul()
    assert torch.get_float32_matmul_precision() == "medium"


def test_it_is_taken_back_where_the_product_is_rounded(onednn, monkeypatch):
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, w: linear(x.bfloat16().float(), w))
    before = torch.get_float32_matmul_precision()
    assert "would round to bfloat16" in cpu_matmul.enable_fast_cpu_matmul()
    assert torch.get_float32_matmul_precision() == before


def test_a_gpu_keeps_its_precision(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = torch.get_float32_matmul_precision()
    assert "left alone" in cpu_matmul.enable_fast_cpu_matmul()
    assert torch.get_float32_matmul_precision() == before
