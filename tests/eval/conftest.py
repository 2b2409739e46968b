import importlib

import pytest


@pytest.fixture
def told(monkeypatch):
    """Call a command, and give the options that its evaluation is called with."""

    def told(name, *arguments):
        seen = []
        run = importlib.import_module(f"vmm.evaluation.{name}.run")
        monkeypatch.setattr(run, "evaluate", lambda options, command: seen.append(options))
        words = [*map(str, arguments), "--device", "cpu"]
        assert importlib.import_module(f"eval.{name}").main(words) == 0
        return seen[0]

    return told
