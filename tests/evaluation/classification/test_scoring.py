import pytest
import torch

from vmm.evaluation.classification.scoring import class_vectors
from vmm.evaluation.common.models import CaptionVectors


def test_a_class_is_the_mean_of_its_prompts_unit_vectors():
    known = {"a cat": [3.0, 0.0], "cat": [0.0, 0.5], "a dog": [1.0, 0.0], "dog": [1.0, 0.0]}

    class Reader:
        def encode_texts(self, captions):
            return CaptionVectors(torch.tensor([known[c] for c in captions]))

    vectors = class_vectors(Reader(), ["cat", "dog"], ["a {}", "{}"])
    torch.testing.assert_close(vectors, torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0]]))
    for templates in ([], ["a video"]):
        with pytest.raises(ValueError, match="must each hold"):
            class_vectors(Reader(), ["cat"], templates)
