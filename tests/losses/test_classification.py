import pytest
import torch

from vmm.losses.classification import classification_loss, merge_views, smooth


def test_each_kind_of_problem_has_its_loss():
    outputs = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
    targets = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]])
    log = outputs.log_softmax(1)
    expected = -(targets * log).sum(1).mean()
    assert classification_loss(outputs, targets, "single_label") == pytest.approx(expected.item())
    p = outputs.sigmoid()
    expected = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    assert classification_loss(outputs, targets, "multi_label") == pytest.approx(expected.item())
    expected = (outputs - targets).square().mean()
    assert classification_loss(outputs, targets, "regression") == pytest.approx(expected.item())
    half = classification_loss(outputs.bfloat16(), targets, "single_label")
    assert half.dtype == torch.float32


def test_smoothing_is_that_of_torch():
    outputs, labels = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    targets = smooth(torch.nn.functional.one_hot(labels, 4).float(), 0.1)
    expected = torch.nn.functional.cross_entropy(outputs, labels, label_smoothing=0.1)
    torch.testing.assert_close(classification_loss(outputs, targets, "single_label"), expected)


def test_probabilities_are_averaged_not_logits():
    logits = torch.tensor([[[8.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]])
    merged = merge_views(logits.double(), "single_label")
    expected = sum(torch.softmax(view.double(), 0) for view in logits[0]) / 3
    torch.testing.assert_close(merged[0], expected)
    assert merged.sum().item() == pytest.approx(1)
    several = merge_views(logits, "multi_label")
    torch.testing.assert_close(several, logits.sigmoid().mean(1))
    torch.testing.assert_close(merge_views(logits, "regression"), logits.mean(1))
