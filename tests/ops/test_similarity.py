import numpy as np
import torch
import torch.nn.functional as F

from vmm.ops.similarity import Mixture, frame_similarity, unit_vectors


def test_one_vector_of_a_clip_is_its_direction_not_its_length():
    video, text = torch.randn(5, 3, 8), torch.randn(7, 8)
    got = unit_vectors(video)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(5))
    of_frames = frame_similarity(video, text)
    lengths = F.normalize(video, dim=-1).mean(1).norm(dim=1)
    torch.testing.assert_close(got @ F.normalize(text).T * lengths[:, None], of_frames)


def test_the_mixture_is_one_formula_for_numbers_arrays_and_tensors():
    mixture = Mixture(0.5, 2.0)
    assert mixture(0.25, -1.0) == -1.5
    np.testing.assert_array_equal(mixture(np.array([0.25]), np.array([-1.0])), [-1.5])
    assert mixture(torch.tensor([0.25]), torch.tensor([-1.0])).tolist() == [-1.5]
    assert str(mixture) == "similarity / 0.5 + 2 x matching logit"
