"""The demo's shards, made when a recipe of the demo first needs them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

_log = logging.getLogger(__name__)


def make_demo_shards(patterns: list[str]) -> None:
    """Run ``data_prep.synthesize`` if the shards of the demo are not there.

    Args:
        patterns: Of all the demo's shards.

    Raises:
        ValueError: If they are not in one folder, there is no source checkout, or making fails.
    """
    folders = {os.path.dirname(pattern) for pattern in patterns}
    if len(folders) != 1:
        raise ValueError(
            f"make_demo needs all shard patterns in one folder, not in {sorted(folders)}; "
            "set data.init_args.make_demo=false for your own shards"
        )
    folder = folders.pop()
    if os.path.exists(os.path.join(folder, "manifest.json")):
        return
    checkout = Path(__file__).parents[2]
    if not (checkout / "data_prep" / "synthesize.py").is_file():
        raise ValueError(
            f"the demo shards in {folder!r} are missing, and the script that makes them comes with "
            "the source checkout only; clone the repository, or set make_demo to false and name "
            "shards of your own"
        )
    _log.warning("making the demo shards in %s: once, about half a minute", folder)
    search = os.pathsep.join(filter(None, [str(checkout), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "data_prep.synthesize", "--out", folder]
    result = subprocess.run(command, env={**os.environ, "PYTHONPATH": search}, check=False)
    if result.returncode:
        raise ValueError(
            f"`{' '.join(command[1:])}` failed with exit code {result.returncode}; see above"
        )
