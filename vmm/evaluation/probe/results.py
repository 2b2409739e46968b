"""The result file of a probe, and its tables.

``probe.json`` holds, beside what its keys say: ``numbers`` as ``measure`` gives them; ``chosen``,
of each probe of the model and of random weights the settings and the top-1 of the held-out training
clips that they were chosen on; ``predictions``, of each test clip its key, its class number and
what each probe says, in the order of ``numbers["probes"]`` (null = unreadable); ``findings`` as in
a retrieval result; ``data``, ``settings``, ``model``, ``versions`` and ``command``, the card.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from vmm.evaluation.common.findings import findings_text
from vmm.evaluation.common.results import Result, listed, text_table
from vmm.text_output import number_of

TITLES = {"linear": "linear", "knn": "nearest neighbours", "attentive": "attentive"}


@dataclass(frozen=True, kw_only=True)
class ProbeResult(Result):
    """A result of probes; the module says what its parts are."""

    FILE_NAME: ClassVar[str] = "probe.json"
    COMMAND: ClassVar[str] = "vmm eval probe"

    numbers: dict[str, Any]
    chosen: dict[str, Any]
    classes: list[str]
    predictions: list[list[Any]]

    def verdict(self) -> str:
        """Say in a sentence what the best probe reads, and what training is worth."""
        probes = self.numbers["probes"]
        best = max(probes, key=lambda probe: float(probes[probe]["model"]["top_1"]))
        found, gain = probes[best]["model"], probes[best]["gain"]
        span = _span(found["interval"]["top_1"])
        name = (
            f"Best of {len(probes)}, {TITLES[best]}"
            if len(probes) > 1
            else TITLES[best].capitalize()
        )
        said = f"{name}: {found['top_1']:.1f} % ({span})"
        if probes[best]["above_majority"]["interval"][0] <= 0:
            return (
                f"{said}: nothing shows that it is better than always saying the most frequent "
                f"class, {self.numbers['majority']['value']:.1f} %."
            )
        if gain is None:
            return f"{said}."
        low, high = gain["interval"]
        worth = f"{gain['value']:+.1f} points ({low:.1f} to {high:.1f})"
        if low > 0:
            return f"{said}, {worth} above the same encoder with random weights."
        return (
            f"{said}: nothing shows that it is better than the same encoder with random weights, "
            f"{worth}."
        )

    def summary(self) -> str:
        """Say in a line what was measured."""
        data = self.data
        unreadable = data["listed"] - data["readable"]
        counted = {"strict": "counted as wrong", "available": "left out"}[data["coverage"]]
        classes = number_of(data["classes"], "class", "classes")
        return (
            f"{data['test_set']}: {classes}, probes learnt from "
            f"{number_of(data['train'], data['media'])} and were tested on {data['tested']}"
            + f" ({unreadable} unreadable, {counted})"
            * bool(unreadable)
        )

    def table(self) -> str:
        """Format it for the terminal."""
        lines = [
            f"{self.name}: {self.summary()}",
            text_table(number_rows(self), left=1),
            self.verdict(),
        ]
        if self.findings:
            lines.append(findings_text(self.findings))
        return "\n".join(lines)

    def card(self) -> list[tuple[str, str]]:
        """List everything that the numbers depend on."""
        data, settings = self.data, self.settings
        problems = listed(data["problems"])
        coverage = {
            "strict": "strict: unreadable test clips are wrong",
            "available": "available: unreadable test clips are dropped",
        }
        tokens = settings["tokens"]
        return [
            ("test set", data["test_set"]),
            ("split hash", f"{data['split_hash']}, of the training clips {data['train_hash']}"),
            ("files", ", ".join([*data["train_files"], *data["files"]])),
            ("training clips", f"{data['train']}, {data['train_left_out']} more unreadable or "
                               "without a label"),
            ("test clips", f"{data['listed']} listed, {data['readable']} readable"
                           + f" ({problems})" * bool(problems)
                           + f", {data['unlabelled']} without a label left out"),
            ("classes", f"{data['classes']}, by {data['numbered_by']}"),
            ("coverage", coverage[data["coverage"]]),
            ("features", f"{settings['width']} numbers per clip, standardised over the training "
                         "clips, before any head"
                         + f"; attentive: {tokens} tokens per clip" * bool(tokens)),
            ("chosen", "; ".join(f"{TITLES[probe]} {_settings(of['settings'])}"
                                 for probe, of in self.chosen["model"].items())
                       + ", on a fifth of the training clips"),
            ("seed", str(settings["seed"])),
            *self.look(),
            ("ties", "expectation over random order"),
            *self.origin(),
        ]  # fmt: skip


def number_rows(result: ProbeResult) -> list[list[str]]:
    """Tabulate the numbers, header first."""
    numbers = result.numbers
    rows = [["", "percent", "95 % interval", "mean over classes", "random weights", "gain"]]
    for probe, found in numbers["probes"].items():
        model, random, gain = found["model"], found["random"], found["gain"]
        row = [TITLES[probe], f"{model['top_1']:.1f}", _span(model["interval"]["top_1"])]
        row.append(f"{model['mean_class']:.1f}")
        if random is None:
            rows.append([*row, "", ""])
            continue
        told = f"{gain['value']:+.1f} ({_span(gain['interval'])})"
        rows.append([*row, f"{random['top_1']:.1f}", told])
    majority = numbers["majority"]
    span = _span(majority["interval"])
    rows.append(["most frequent class", f"{majority['value']:.1f}", span, "", "", ""])
    rows.append(["chance", f"{numbers['chance']:.1f}", "", "", "", ""])
    return rows


def _settings(settings: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())


def _span(interval: list[float]) -> str:
    return f"{interval[0]:.1f} to {interval[1]:.1f}"
