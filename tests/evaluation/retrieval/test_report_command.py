import json

import pytest

from tests.evaluation import contents
from vmm.evaluation.retrieval import report_command


@pytest.fixture
def main(tmp_path):
    """Call the command with a result, a run and more."""
    (tmp_path / "retrieval.json").write_text(json.dumps(contents.retrieval()))
    contents.write_log(tmp_path / "run")
    given = {"--out": "x.html", "--result": "a=retrieval.json", "--run": "r=run"}

    def main(**changed):
        told = given | {f"--{name}": value for name, value in changed.items()}
        return report_command.main([word for pair in told.items() if pair[1] for word in pair])

    return main


def test_results_runs_and_steps_become_one_page(main, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    steps = [{"name": "stage 1", "command": "vmm fit -c a.yaml", "seconds": 61.2, "more": None}]
    (tmp_path / "steps.json").write_text(json.dumps(steps))
    assert main(steps="steps.json", title="my <title>") == 0
    said = capsys.readouterr().out
    assert "dual encoder" in said and said.endswith("\n\nreport: x.html\n")
    page = (tmp_path / "x.html").read_text()
    assert "my &lt;title&gt;" in page and "vmm fit -c a.yaml" in page
    assert page.count("data:image/png") == 4  # recall, ranks of both directions, the run's curves


def test_bad_runs_and_arguments(main, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(run="r=empty") == 2
    assert "there is no" in capsys.readouterr().err
    (tmp_path / "run/metrics.csv").write_text("step,train/loss\n0,many\n")
    assert main() == 2
    assert "no number for train/loss" in capsys.readouterr().err
    (tmp_path / "steps.json").write_text('[{"name": "a"}]')
    assert main(steps="steps.json") == 2
    assert "KeyError('command')" in capsys.readouterr().err
    assert main(result=None) == 2  # its metrics.csv alone makes no run
    assert "no config.yaml there" in capsys.readouterr().err
    assert main(result=None, run=None) == 2
    assert "nothing to report" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(run="nameless")
