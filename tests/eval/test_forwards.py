import importlib
import subprocess
import sys

import pytest

from vmm.cli import GROUPS

MODULES = {
    **{f"eval.{name.replace('-', '_')}": command for name, command in GROUPS["eval"].items()},
    "data_prep.make_shards": GROUPS["shards"]["make"],
    "data_prep.inspect_shards": GROUPS["shards"]["inspect"],
    "data_prep.synthesize": GROUPS["shards"]["demo"],
}


@pytest.mark.parametrize("name", MODULES)
def test_in_a_checkout_every_command_has_the_name_of_a_module(name, capsys):
    main = importlib.import_module(name).main
    module, _, function = MODULES[name].main.partition(":")
    assert main.func == getattr(importlib.import_module(module), function)
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert capsys.readouterr().out.startswith(f"usage: python -m {name} ")


def test_it_runs_as_a_module_and_says_its_name(root):
    command = [sys.executable, "-m", "eval.compare", "nowhere", "nowhere"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("python -m eval.compare: error: nowhere cannot be read")
