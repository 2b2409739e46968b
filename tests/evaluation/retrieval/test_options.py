import pytest

from vmm.evaluation.retrieval.options import Options
from vmm.evaluation.retrieval.protocols import PROTOCOLS


@pytest.mark.parametrize("k", [0, -3])
def test_k_below_one_is_refused(k):
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}; --no-rerank switches"):
        Options(k=k)


def test_the_protocol_is_that_of_the_data_set():
    assert Options(dataset="msvd").protocol is PROTOCOLS["msvd"]
    assert Options(shards="x.tar").protocol is None
    with pytest.raises(ValueError, match="there is no test set 'msvd-2'; known are msrvtt-1ka"):
        _ = Options(dataset="msvd-2").protocol
