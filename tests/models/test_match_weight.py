import json

import pytest

from vmm.models.match_weight import FILE_NAME, read_match_weight, write_match_weight
from vmm.ops.similarity import MATCH_WEIGHT


def test_a_run_keeps_the_weight_that_was_chosen(tmp_path):
    assert read_match_weight(tmp_path) == MATCH_WEIGHT
    write_match_weight(tmp_path, 0.3, {"clips": 64})
    assert read_match_weight(tmp_path) == 0.3
    assert json.loads((tmp_path / FILE_NAME).read_text()) == {"match_weight": 0.3, "clips": 64}
    write_match_weight(tmp_path, 0, {})
    assert read_match_weight(tmp_path) == 0


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"match_weight": "x"}', '{"match_weight": -1}', '{"match_weight": NaN}'],
)
def test_a_damaged_file_is_refused_with_the_remedy(tmp_path, content):
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(ValueError, match=r"match_weight\.json is damaged .*vmm eval match-weight"):
        read_match_weight(tmp_path)
