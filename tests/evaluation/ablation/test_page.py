import json

from tests.evaluation.ablation.test_measure import ONE, OTHER, results, study
from vmm.evaluation.ablation.page import write_results


def write(folder, found):
    found = {name: value | {"seconds": 3.0} for name, value in found.items()}
    commands = {ONE.key(): "vmm fit one", OTHER.key(): "vmm fit <other>"}
    gap = study(name="g", measure="gap", claim=None)
    return write_results(folder, [study(), gap], found, commands, {"seeds": "3"})


def test_page_and_file_say_the_same(tmp_path, look_at):
    found = results([(40, 60), (50, 70), (60, 80)], [(50, 60), (61, 70), (70, 80)])
    said = write(tmp_path, found)
    assert said[0].startswith("It helps: yes") and said[1].startswith("s: other is 10.3 ± 0.3")
    page = (tmp_path / "ablations.html").read_text()
    assert "It helps: yes, by more than two standard errors (+10.3 ± 0.3 points)." in page
    assert "in 18 % of" in page and "vmm fit &lt;other&gt;" in page
    content = json.loads((tmp_path / "ablations.json").read_text())
    top_1, gap = content["studies"]
    assert top_1["variants"][1]["values"] == [50, 61, 70]
    assert gap["variants"][1]["difference"]["mean"] < -10
    assert top_1["claim"] in page and all(word in page for word in top_1["words"])
    look_at(tmp_path / "ablations.html")


def test_what_has_learnt_nothing_is_not_compared_in_silence(tmp_path):
    said = write(tmp_path, results([(8, 9), (9, 9)], [(8, 9), (16, 9)]))
    assert sum("nothing to compare, train longer" in line for line in said) == 2
    said = write(tmp_path, results([(8, 9), (9, 9)], [(8, 9), (17, 9)]))
    assert not any("train longer" in line for line in said)


def test_one_seed_is_called_luck(tmp_path):
    said = write(tmp_path, results([(40, 60)], [(50, 60)]))
    assert "not known from one seed" in said[0]
    page = (tmp_path / "ablations.html").read_text()
    assert "no difference can be told from luck" in page
