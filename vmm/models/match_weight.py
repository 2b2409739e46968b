"""The weight of the matching head in re-ranking, as a run directory keeps it.

It is chosen on validation clips (``vmm.evaluation.retrieval.mixing``) and belongs to all
checkpoints of a run; an exported folder states it in its ``config.json``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from vmm.ops.similarity import MATCH_WEIGHT
from vmm.whole import whole_file

FILE_NAME = "match_weight.json"
KEY = "match_weight"


def write_match_weight(run: Path, weight: float, said: dict[str, Any]) -> None:
    """Keep the weight in a run directory.

    Args:
        run: The folder.
        weight: Of the matching head's logit; see ``vmm.ops.similarity.Mixture``.
        said: How it was chosen, for people.
    """
    with whole_file(run / FILE_NAME, durable=False) as file:
        file.write_text(json.dumps({KEY: weight, **said}, indent=1) + "\n", encoding="utf-8")


def read_match_weight(run: Path) -> float:
    """Read the weight of a run directory; runs of which none was chosen have ``MATCH_WEIGHT``.

    Raises:
        ValueError: If the file is damaged.
    """
    path = run / FILE_NAME
    if not path.is_file():
        return MATCH_WEIGHT
    try:
        content = json.loads(path.read_bytes())
        return check_match_weight(content[KEY])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}); delete it, and the weight is {MATCH_WEIGHT}, then "
            f"choose it anew if you like: `vmm eval match-weight --run {run}`"
        ) from error


def check_match_weight(value: object) -> float:
    """Return a weight that was read from a file.

    Raises:
        ValueError: If it is no finite number of at least 0.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:  # type: ignore[arg-type,operator]
        raise ValueError(f"{KEY} {value!r} must be a finite number of at least 0")
    return float(value)  # type: ignore[arg-type]
