"""Classes of which each is another one backwards: does a model see the order of frames?

A clip of a class played backwards is one of its twin, so whatever ignores the order of frames says
the same of both. The number "between twins" counts the clips that were taken for their class or its
twin: which share of them for their class? Guessing gives 50 %, and who has learnt the order falls
to 0 % when the frames are reversed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vmm.evaluation.classification.page import confusion_map
from vmm.evaluation.classification.results import ClassificationResult
from vmm.evaluation.common.page import write_accuracy_page
from vmm.evaluation.common.pictures import png
from vmm.evaluation.common.results import text_table
from vmm.pages import data_uri


class TwinClass(NamedTuple):
    """What is known of a class beside its name."""

    group: str
    """What tells it from others."""
    twin: str
    """The class that is the same one backwards."""


class TwinNumbers(NamedTuple):
    """Accuracies of some clips, in percent."""

    clips: int
    top_1: float
    between_twins: float | None
    """None: not one clip was taken for its class or its twin."""


def read_twins(path: Path) -> dict[str, TwinClass]:
    """Read ``classes.json`` of ``data_prep.motions``: class -> its group and its twin.

    Raises:
        ValueError: If it is something else, or a twin's twin is not the class.
    """
    try:
        content = json.loads(path.read_bytes())
        classes = {
            name: TwinClass(str(entry["group"]), str(entry["twin"]))
            for name, entry in content.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path} does not say of every class its "group" and its "twin" ({error!r}); give '
            "classes.json of python -m data_prep.motions"
        ) from error
    for name, (_, twin) in classes.items():
        if twin not in classes or classes[twin].twin != name:
            raise ValueError(
                f"{path}: {twin!r} is the twin of {name!r}, but not the other way round"
            )
    return classes


def measure_twins(
    result: ClassificationResult, classes: Mapping[str, TwinClass]
) -> dict[str, TwinNumbers]:
    """Measure every group, and all clips as the group "all".

    Args:
        result: Of one model; an unreadable clip is wrong.
        classes: From ``read_twins``.

    Raises:
        ValueError: If the result is about other classes.
    """
    unknown = sorted(set(result.classes) ^ set(classes))
    if unknown:
        raise ValueError(
            f"{result.name} and the list of twins are about other classes, e.g. {unknown[0]!r}; "
            "give the classes.json of the data that was evaluated"
        )
    groups = dict.fromkeys(entry.group for entry in classes.values())
    answers: dict[str, list[tuple[str, str | None]]] = {name: [] for name in ("all", *groups)}
    for _, label, choice in result.predictions:
        truth = result.classes[label]
        answer = truth, None if choice is None else result.classes[choice]
        answers["all"].append(answer)
        answers[classes[truth].group].append(answer)
    return {group: _measure(some, classes) for group, some in answers.items() if some}


def _measure(
    answers: Sequence[tuple[str, str | None]], classes: Mapping[str, TwinClass]
) -> TwinNumbers:
    right = sum(truth == choice for truth, choice in answers)
    swapped = sum(classes[truth].twin == choice for truth, choice in answers)
    between = 100 * right / (right + swapped) if right + swapped else None
    return TwinNumbers(len(answers), 100 * right / len(answers), between)


def build_twin_page(
    out: Path,
    results: Sequence[tuple[str, ClassificationResult]],
    classes: Mapping[str, TwinClass],
    steps: Sequence[Mapping[str, str]] = (),
) -> str:
    """Write the page of some results, of which the first is the headline.

    Args:
        out: The HTML file.
        results: Name -> result of the same clips.
        classes: From ``read_twins``.
        steps: How it was made: "name", "command" and "seconds" of each.

    Returns:
        Its table, for the terminal.

    Raises:
        ValueError: If a result is about other classes.
    """
    measured = {name: measure_twins(result, classes) for name, result in results}
    (_, first), *_ = results
    rows, group_rows = _rows(measured, len(classes)), _group_rows(measured)
    write_accuracy_page(
        out,
        title="Which motion, and which way round?",
        summary=verdict({name: groups["all"] for name, groups in measured.items()}),
        table=rows,
        note=f"Percent of {first.data['listed']} clips, of combinations that training never saw. "
        "Between twins: of the clips that were taken for their class or for the same one "
        "backwards, how many for their class.",
        tables={"By what tells classes apart": group_rows},
        findings=first.findings,
        pictures={
            f"{name}: what (rows) is taken for what (columns)": data_uri(
                "image/png", png(confusion_map(result))
            )
            for name, result in results
        },
        card=first.card()
        + [
            (f"step {number}", f"{step['name']}, {step['seconds']} s: {step['command']}")
            for number, step in enumerate(steps, start=1)
        ],
    )
    return f"{text_table(rows, left=1)}\n\n{text_table(group_rows, left=1)}"


def _rows(measured: Mapping[str, Mapping[str, TwinNumbers]], num_classes: int) -> list[list[str]]:
    """Tabulate all clips, header first."""
    rows = [["", "between twins", "top-1"]]
    for name, numbers in measured.items():
        rows.append([name, _between(numbers["all"]), f"{numbers['all'].top_1:.1f}"])
    return [*rows, ["chance", "50.0", f"{100 / num_classes:.1f}"]]


def _group_rows(measured: Mapping[str, Mapping[str, TwinNumbers]]) -> list[list[str]]:
    """Tabulate the groups, header first: top-1 of each, and between twins."""
    groups = [group for group in next(iter(measured.values())) if group != "all"]
    rows = [["", *(f"{group}: top-1" for group in groups), *(f"{g}: twins" for g in groups)]]
    for name, numbers in measured.items():
        some = [numbers[group] for group in groups]
        rows.append([name, *(f"{n.top_1:.1f}" for n in some), *map(_between, some)])
    return rows


def _between(numbers: TwinNumbers) -> str:
    return "none" if numbers.between_twins is None else f"{numbers.between_twins:.1f}"


def verdict(measured: Mapping[str, TwinNumbers]) -> str:
    """Say in words which model knows a class from the same one backwards."""
    said = []
    for name, numbers in measured.items():
        share = numbers.between_twins
        if share is None:
            said.append(f"{name} takes no clip for its class or for the same one backwards")
            continue
        meaning = "it does not see the order of frames"
        if share >= _KNOWS:
            meaning = "it sees the order of frames"
        elif share <= 100 - _KNOWS:
            meaning = "it says the opposite"
        elif abs(share - 50) > _CHANCE:
            meaning = "it sees something of it"
        said.append(f"{name} tells twins apart in {share:.1f} %: {meaning}")
    return ". ".join(said) + "."


_KNOWS = 90.0
_CHANCE = 5.0
"""Percentage points around 50 that are called chance."""
