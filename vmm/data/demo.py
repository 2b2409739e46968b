"""The demo's shards, made when a recipe of the demo first needs them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from vmm.data import datamodules

_log = logging.getLogger(__name__)


class WebVideoData(datamodules.WebVideoData):
    """The data of the demo's recipes: its shards are made if they are missing.

    It is called as the class without a demo because Lightning keeps the position in the data
    under that name: a run goes on from a checkpoint of either.

    Args:
        make_demo: Make the demo shards first if they are missing; false for your own shards.
    """

    def __init__(self, *args: Any, make_demo: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.make_demo = make_demo

    def prepare_data(self) -> None:
        """Make missing demo shards, and index all shards once per machine.

        Raises:
            ValueError: If a shard pattern is wrong, or the demo cannot be made.
        """
        if self.make_demo:
            make_demo_shards(self.patterns())
        super().prepare_data()


def make_demo_shards(patterns: list[str]) -> None:
    """Run ``vmm shards demo`` if the shards of the demo are not there.

    Args:
        patterns: Of all the demo's shards.

    Raises:
        ValueError: If they are not in one folder, or making fails.
    """
    folders = {os.path.dirname(pattern) for pattern in patterns}
    if len(folders) != 1:
        several = " and ".join(sorted(map(str, folders)))
        raise ValueError(
            f"make_demo needs all shard patterns in one folder, not in {several}; "
            "set data.init_args.make_demo=false for your own shards"
        )
    folder = folders.pop()
    if os.path.exists(os.path.join(folder, "manifest.json")):
        return
    _log.warning("making the demo shards in %s: once, about half a minute", folder)
    ours = str(Path(__file__).parents[2])  # the vmm that runs, whichever is installed
    search = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "vmm", "shards", "demo", "--out", folder]
    result = subprocess.run(command, env={**os.environ, "PYTHONPATH": search}, check=False)
    if result.returncode:
        raise ValueError(
            f"`{' '.join(command[1:])}` failed with exit code {result.returncode}; see above"
        )
