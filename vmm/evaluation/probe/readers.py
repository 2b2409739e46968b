"""The probes of scikit-learn, which this file alone imports: linear, and nearest neighbours.

Both read one standardised vector per clip. Shape legend: N training clips, M test clips, D width of
the features, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

STRENGTHS = tuple(10.0**power for power in range(-5, 4))
"""Inverse strengths C of the linear probe's regularisation that are tried."""
NEIGHBOURS = (1, 2, 5, 10, 20, 50)
"""Numbers of neighbours that are tried."""


Advance = Callable[[], None]


class Reading(NamedTuple):
    """What a probe says of the test clips."""

    scores: Floats
    """(M, K), higher is more likely."""
    chosen: dict[str, float]
    """The settings that were chosen."""
    held_out: float
    """Top-1 in percent, of the training clips that they were chosen on."""
    edge: bool = False
    """Whether a choice is the last of those that were tried."""
    converged: bool = True
    """Whether the fit came to its end."""


def hold_out(labels: Numbers, groups: Numbers, seed: int) -> tuple[Numbers, Numbers]:
    """Part training clips: about four fifths to fit on, a fifth to choose settings on.

    Classes are spread alike over both, and clips of one video stay together.

    Args:
        labels: (N,) class of each clip.
        groups: (N,) video of each clip.
        seed: The draw is a function of it.

    Returns:
        Numbers of the clips of both parts.

    Raises:
        ValueError: If all clips are of one video.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    videos, largest = len(np.unique(groups)), int(np.bincount(labels).max())
    if videos < 2:
        raise ValueError(
            f"all {len(labels)} training clips are of one video: there is none to choose the "
            "probe's settings on; give clips of more videos"
        )
    folds = StratifiedGroupKFold(max(2, min(5, videos, largest)), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class may have fewer clips than parts
        parts = [*folds.split(np.zeros(len(labels)), labels, groups)]
    fitted, held = next((a, b) for a, b in parts if len(a) and len(b))
    return fitted, held


def read_linearly(
    train: Floats, labels: Numbers, test: Floats, parts: tuple[Numbers, Numbers], advance: Advance
) -> Reading:
    """Fit a logistic regression, its C chosen on held-out training clips, then on all of them.

    Args:
        train: (N, D), standardised.
        labels: (N,), each of 0 to K - 1 at least once.
        test: (M, D), standardised alike.
        parts: From ``hold_out``.
        advance: Called after each fit.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    fitted, held = parts
    rights = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConvergenceWarning)
        model = LogisticRegression(max_iter=1000, warm_start=True)
        for strength in STRENGTHS:  # from strong to weak, each beginning where the last one ended
            model.set_params(C=strength).fit(train[fitted], labels[fitted])
            rights.append(100 * float(np.mean(model.predict(train[held]) == labels[held])))
            advance()
        best = int(np.argmax(rights))
        said.clear()
        model = LogisticRegression(max_iter=1000, C=STRENGTHS[best]).fit(train, labels)
        advance()
    edge = best == len(STRENGTHS) - 1
    scores = _of_all(model.predict_proba(test), model.classes_, int(labels.max()) + 1)
    return Reading(scores, {"C": STRENGTHS[best]}, rights[best], edge, not said)


def read_by_neighbours(
    train: Floats, labels: Numbers, test: Floats, parts: tuple[Numbers, Numbers], advance: Advance
) -> Reading:
    """Ask the nearest training clips by cosine, near ones most; see ``read_linearly``."""
    from sklearn.neighbors import KNeighborsClassifier

    def model(number: int) -> Any:
        return KNeighborsClassifier(number, metric="cosine", algorithm="brute", weights="distance")

    fitted, held = parts
    tried = [number for number in NEIGHBOURS if number <= len(fitted)]
    rights = []
    for number in tried:
        asked = model(number).fit(train[fitted], labels[fitted])
        rights.append(100 * float(np.mean(asked.predict(train[held]) == labels[held])))
        advance()
    best = int(np.argmax(rights))
    asked = model(tried[best]).fit(train, labels)
    scores = _of_all(asked.predict_proba(test), asked.classes_, int(labels.max()) + 1)
    advance()
    edge = tried[best] == NEIGHBOURS[-1]
    return Reading(scores, {"k": tried[best]}, rights[best], edge)


def _of_all(scores: Floats, classes: Sequence[int], number: int) -> Floats:
    """Give scores of the classes that a model knows as scores of all, (M, K)."""
    found = np.zeros((len(scores), number))
    found[:, classes] = scores
    return found
