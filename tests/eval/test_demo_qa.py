from pathlib import Path

import pytest

from eval import demo, demo_qa


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_goes_on_from_the_demo_s_model(here, capsys):
    assert demo_qa.main([]) == 2
    assert "run `make demo` first" in capsys.readouterr().err
    training = demo_qa.steps(quick=False)["training on films"]
    assert f"init_from {demo.RUNS}/stage2" in training and "overlays/long_videos.yaml" in training


def test_only_its_own_earlier_results_go(here, monkeypatch, capsys):
    demo_s = [demo.OUT / "report.html", demo.RUNS / "stage2" / "config.yaml"]
    own = [demo.OUT / "qa_test" / "qa.json", demo.RUNS / "long_videos" / "config.yaml"]
    for path in (*demo_s, *own):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    asked = []
    monkeypatch.setattr(demo_qa, "run_steps", lambda todo, record: asked.append(record) or 0)
    assert demo_qa.main(["--quick"]) == 0 and asked == [Path("demo/qa_steps.json")]
    assert [path.exists() for path in (*demo_s, *own)] == [True, True, False, False]
    assert (
        "demo/qa_test/report.html and demo/qa_long/report.html and demo/moments/"
        in capsys.readouterr().out
    )
