"""``vmm summary``: what a recipe, or a run, is and costs, without loading its weights or its data.

  vmm summary RECIPE [OVERLAY ...] [--key=value ...] [--json]
  vmm summary RUN [--json]

Parameters by part, tokens, multiply-adds of one view as published and all of them, what a training
step keeps in memory, and the steps and samples of an epoch where the shards are there.
"""

from __future__ import annotations

import json
from pathlib import Path

from vmm.command_line import CommandParser
from vmm.recipe_files import prepared, refuse_no_run
from vmm.setting_names import refuse_misspelt
from vmm.text_output import complain, say


def main(argv: list[str]) -> int:
    """Print the summary."""
    parser = CommandParser(
        prog="vmm summary",
        usage="vmm summary (RUN | RECIPE [OVERLAY ...] [--key=value ...]) [--json]",
        description=__doc__.partition("\n")[0],
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    if {"-h", "--help"} & set(argv):
        parser.parse_args(["--help"])
    words = [word for word in argv if word != "--json"]
    parser.parse_args([word for word in words if not word] + ["--json"])  # refuses empty words
    if words and not words[0].startswith("-") and not words[0].endswith((".yaml", ".yml")):
        refuse_no_run(Path(words[0]))
    else:
        words = prepared(words)
        refuse_misspelt(words)
    complain("the model is described, which takes a while; no weights and no clips are loaded")

    from vmm.summary import in_words, summarize

    summary = summarize(words)
    if "--json" in argv:
        say(json.dumps(summary, indent=2), lines=True)
    else:
        say("\n".join(in_words(summary)), lines=True)
    return 0
