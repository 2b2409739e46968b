"""The page of the studies, and the file of their numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vmm.evaluation.ablation.measure import (
    Compared,
    by_chance,
    claim_in_words,
    compare,
    in_words,
    learnt_nothing,
)
from vmm.evaluation.ablation.studies import MEASURES, Study
from vmm.evaluation.common.page import render
from vmm.evaluation.common.pictures import DPI, WIDE, png
from vmm.evaluation.common.results import versions
from vmm.pages import data_uri
from vmm.text_output import write_text
from vmm.whole import whole_file

_TEMPLATES = Path(__file__).parent / "templates"
_SCHEMA = 1
_CHANCE = 100 / 12
"""Top-1 of guessing, percent: the motions are twelve."""


def write_results(
    out: Path,
    studies: Sequence[Study],
    results: Mapping[tuple[str, int], Mapping[str, Any]],
    commands: Mapping[str, str],
    card: Mapping[str, str],
) -> list[str]:
    """Write ``ablations.json`` and ``ablations.html``.

    Args:
        out: Existing folder.
        studies: What was compared.
        results: From ``run.run_all``.
        commands: Key of a training -> the command that repeats it.
        card: What the numbers depend on, by name.

    Returns:
        What the numbers say, a line each.
    """
    seeds = len({seed for _, seed in results})
    shown, content, claims, said = [], [], [], []
    for study in studies:
        compared = compare(study, results)
        words = [
            f"{in_words(c.name, study.baseline, c.difference)}."
            for c in compared
            if c.difference is not None
        ]
        if learnt_nothing(study, results, _CHANCE):
            text = "no training is much above chance: there is nothing to compare, train longer."
            words.insert(0, text)
        claim = claim_in_words(study, compared)
        claims += [claim] if claim else []
        said += [f"{study.name}: {word}" for word in words]
        shown.append(
            {
                "question": study.question,
                "name": study.name,
                "measure": MEASURES[study.measure],
                "picture": data_uri("image/png", png(dots(study, compared))),
                "words": words,
                "note": study.note,
                "rows": _rows(study, compared, results),
                "commands": [(name, commands[t.key()]) for name, t in study.variants.items()],
            }
        )
        content.append(_content(study, compared, results, words, claim))
    whole = {"schema": _SCHEMA, "settings": dict(card), "studies": content, "versions": versions()}
    with whole_file(out / "ablations.json") as file:
        file.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    page = render(
        "ablations.html.j2", _TEMPLATES, title="What helps, and what is luck", studies=shown,
        claims=claims, seeds=seeds, card=card, chance=by_chance(seeds) if seeds > 1 else None,
    )  # fmt: skip
    write_text(out / "ablations.html", page)
    return [*claims, *said]


def _content(
    study: Study,
    compared: Sequence[Compared],
    results: Mapping[tuple[str, int], Mapping[str, Any]],
    words: list[str],
    claim: str | None,
) -> dict[str, Any]:
    variants = []
    for c in compared:
        key = study.variants[c.name].key()
        variants.append(
            {
                "name": c.name,
                "values": c.values,
                **c.mean._asdict(),
                "difference": c.difference and c.difference._asdict(),
                "trainings": {seed: results[name, seed] for name, seed in results if name == key},
            }
        )
    return {
        "name": study.name, "question": study.question, "measure": study.measure,
        "baseline": study.baseline, "variants": variants, "words": words, "claim": claim,
    }  # fmt: skip


def _rows(
    study: Study,
    compared: Sequence[Compared],
    results: Mapping[tuple[str, int], Mapping[str, Any]],
) -> list[list[str]]:
    """Tabulate a study, header first."""
    gap = study.measure == "gap"
    header = ["", *(["training top-1", "test top-1", "gap"] if gap else ["top-1"])]
    rows = [[*header, "difference", "seconds"]]
    for c in compared:
        key = study.variants[c.name].key()
        own = [result for (name, _), result in results.items() if name == key]
        means = [
            f"{sum(result[part] for result in own) / len(own):.1f}"
            for part in (("train_top_1", "top_1") if gap else ())
        ]
        seconds = sum(result["seconds"] for result in own) / len(own)
        difference = "" if c.difference is None else _number(c.difference, "+")
        rows.append([c.name, *means, _number(c.mean), difference, f"{seconds:.0f}"])
    return rows


def _number(estimate: Any, sign: str = "") -> str:
    mean = f"{estimate.mean:{sign}.1f}"
    return mean if estimate.error is None else f"{mean} ± {estimate.error:.1f}"


def dots(study: Study, compared: Sequence[Compared]) -> Figure:
    """Draw every seed of every variant, their mean and its standard error."""
    figure = Figure(figsize=(WIDE, 0.9 + 0.34 * len(compared)), dpi=DPI, layout="constrained")
    ax = figure.subplots()
    for row, c in enumerate(compared):
        colour = "#57606a" if c.difference is None else "#0969da"
        ax.plot(c.values, [row] * len(c.values), "o", color=colour, alpha=0.35, ms=5)
        ax.errorbar(
            [c.mean.mean], [row], xerr=[c.mean.error or 0], fmt="D", color=colour, ms=6, capsize=4
        )
    ax.axvline(compared[0].mean.mean, color="#57606a", lw=1, ls=":")
    ax.set_yticks(range(len(compared)), [c.name for c in compared])
    ax.set_ylim(len(compared) - 0.5, -0.5)
    ax.set_xlabel("gap, points" if study.measure == "gap" else "top-1, percent")
    ax.grid(axis="x", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    return figure
