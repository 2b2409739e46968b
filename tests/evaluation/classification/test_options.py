import pytest

from vmm.evaluation.classification.options import Options
from vmm.evaluation.common.class_protocols import CLASS_PROTOCOLS


def test_the_protocol_is_that_of_the_data_set():
    assert Options(dataset="ssv2").protocol is CLASS_PROTOCOLS["ssv2"]
    assert Options(shards="x.tar").protocol is None


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="there is no classification set 'k40'; known are k400"):
        _ = Options(dataset="k40").protocol
