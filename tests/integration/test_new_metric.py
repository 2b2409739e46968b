"""A metric that is added to the one table is shown wherever metrics are, and named nowhere else."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from pathlib import Path

from vmm import metrics


def reciprocal(ranks):
    return 100 * (1 / metrics.expected_rank(ranks)).mean().item()


metrics.METRICS["reciprocal"] = metrics.Metric("MRR", reciprocal, brief=True)

from tests.export.runs import write_run
from vmm.evaluation.retrieval.options import Options
from vmm.evaluation.retrieval.run import evaluate
from vmm.export.model_card import find_results, model_card
from vmm.runs import load_run

run = Path(sys.argv[1])
write_run(run, seed=0)
result = evaluate(Options(run=run, checkpoint="last", shards=sys.argv[2], k=4))
print(result.table())
(run / "card.md").write_text(model_card(load_run(run, "last"), "mit", find_results(run)))
"""


@pytest.mark.slow
def test_a_new_metric_is_in_result_table_page_and_card(root, demo_shards, tmp_path):
    run = tmp_path / "run"
    shards = f"{demo_shards.folder}/test-*.tar"
    words = [sys.executable, "-c", SCRIPT, str(run), shards]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((run / "retrieval_forward" / "retrieval.json").read_text())
    for scores in ("dual", "vectors", "mixed", "reranked"):
        for direction, ranks in result["queries"][scores].items():
            columns = zip(ranks["better"], ranks["tied"], ranks["targets"], strict=True)
            found = [1 / (better + (tied + 1) / (targets + 1)) for better, tied, targets in columns]
            expected = 100 * sum(found) / len(found)
            assert result[scores][f"{direction}_reciprocal"] == pytest.approx(expected)
    assert "t2v_reciprocal" in result["chance"]
    shown = f"{result['reranked']['t2v_reciprocal']:.1f}"
    header, *rows = (line.split() for line in done.stdout.splitlines()[1:])
    assert header[-1] == "MRR" and rows[3][-1] == shown
    page = (run / "retrieval_forward" / "report.html").read_text()
    assert page.count("MRR</th>") == 2 and f">{shown}<" in page  # one for each direction
    card = (run / "card.md").read_text()
    assert card.count("MRR") == 2 and f" {shown} |" in card
