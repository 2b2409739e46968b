"""The page of a probe."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from vmm.evaluation.common.page import write_accuracy_page
from vmm.evaluation.common.pictures import DPI, WIDE, png
from vmm.evaluation.probe.results import TITLES, ProbeResult, number_rows
from vmm.pages import data_uri

_WORST = 20
NOTE = (
    "What these numbers show: how well classes are told apart by features that stay as they are, "
    "with these training clips and so simple a reader; what is above random weights, training put "
    "there. What they do not show: how good the model becomes when all of it is fine-tuned, by "
    "which models may be in another order; that something is not in the features because no probe "
    "here reads it; a comparison with probes that learnt from other clips. Settings were chosen "
    "on a part of the training clips, never on test clips. Intervals are drawn over videos of the "
    "test clips; other training clips, other random weights and other seeds are not in them."
)


def write_page(path: Path, result: ProbeResult) -> None:
    """Write the page of a result."""
    probes = result.numbers["probes"]
    best = max(probes, key=lambda probe: float(probes[probe]["model"]["top_1"]))
    classes = sorted(probes[best]["model"]["per_class"], key=lambda c: float(c["top_1"]))
    title = "Classes" if len(classes) <= _WORST else f"The {_WORST} worst classes"
    tables = {
        f"{title}, by the {TITLES[best]} probe": [
            ["class", "test clips", "top-1", "most often taken for"],
            *(
                [c["name"], str(c["samples"]), f"{c['top_1']:.1f}", c["taken_for"] or ""]
                for c in classes[:_WORST]
            ),
        ]
    }
    picture = data_uri("image/png", png(bars(result)))
    write_accuracy_page(
        path,
        title=f"Probes of {result.name} on {result.data['test_set']}",
        summary=f"{result.verdict()} Test set {result.summary()}.",
        table=number_rows(result),
        note=NOTE,
        tables=tables,
        findings=result.findings,
        pictures={"Top-1 in percent, with 95 % intervals": picture},
        card=result.card(),
    )


def bars(result: ProbeResult) -> Figure:
    """Draw the probes of the model beside those of random weights, and the most frequent class."""
    probes = result.numbers["probes"]
    figure = Figure(figsize=(WIDE, 1.2 + 0.6 * len(probes)), dpi=DPI, layout="constrained")
    ax = figure.subplots()
    drawn = {"model": ("trained", "#3b6ea5", -0.18), "random": ("random weights", "#b9b9b9", 0.18)}
    for key, (label, colour, shift) in drawn.items():
        shown = [(i, p[key]) for i, p in enumerate(probes.values()) if p[key] is not None]
        if not shown:
            continue
        values = [found["top_1"] for _, found in shown]
        ends = [found["interval"]["top_1"] for _, found in shown]
        errors = [
            [max(value - low, 0) for value, (low, _) in zip(values, ends, strict=True)],
            [max(high - value, 0) for value, (_, high) in zip(values, ends, strict=True)],
        ]
        places = [i + shift for i, _ in shown]
        ax.barh(places, values, 0.34, xerr=errors, color=colour, label=label, capsize=3)
    usual = result.numbers["majority"]["value"]
    ax.axvline(usual, color="#a33", linewidth=1, label="most frequent class")
    ax.set_yticks(range(len(probes)), [TITLES[probe] for probe in probes])
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("percent")
    figure.legend(loc="outside lower center", ncols=1, fontsize=8, frameon=False)
    return figure
