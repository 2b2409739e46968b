import copy

from vmm.evaluation.probe.results import ProbeResult


def test_a_result_is_read_as_it_was_written(result, tmp_path):
    result.write(tmp_path)
    assert ProbeResult.read(tmp_path) == result


def test_the_verdict_says_what_training_is_worth(result):
    said = "+40.0 points (30.0 to 50.0) above the same encoder with random weights"
    assert said in result.verdict() and "Best of 2, linear: 80.0 %" in result.verdict()
    numbers = copy.deepcopy(result.numbers)
    result.numbers["probes"]["linear"]["gain"] = {"value": 3.0, "interval": [-1.0, 7.0]}
    assert "nothing shows that it is better than the same encoder" in result.verdict()
    numbers["probes"]["linear"]["above_majority"] = {"value": 1.0, "interval": [-9.0, 11.0]}
    result.numbers.update(numbers)
    assert "nothing shows that it is better than always saying" in result.verdict()
    result.numbers["probes"].pop("linear")
    assert result.verdict() == "Nearest neighbours: 50.0 % (40.0 to 60.0)."


def test_the_table_and_the_card_say_everything(result):
    table = result.table()
    for said in ("linear", "+40.0 (30.0 to 50.0)", "most frequent class", "1 unreadable, counted"):
        assert said in table
    card = dict(result.card())
    assert card["training clips"] == "24, 1 more unreadable or without a label"
    assert "2 without a label left out" in card["test clips"] and "(1 empty)" in card["test clips"]
    assert card["chosen"] == "linear C 0.1, on a fifth of the training clips"
    assert "16 tokens per clip" in card["features"]
