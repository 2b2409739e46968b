import csv
import json
import os
import sys

import pytest

from vmm.search.outputs.registry import OUTPUTS, load_output
from vmm.search.results import COLUMNS


def test_every_kind_loads_and_is_chosen_by_the_end_of_the_name():
    for end in OUTPUTS:
        assert load_output(f"a{end}").__module__.startswith("vmm.search.outputs.")
    assert load_output("A.OTIO") is load_output("a.otio")
    assert load_output("clips") is load_output("my.clips/") is load_output("a/b/")
    with pytest.raises(ValueError, match=r"--out a\.xml is of no known kind; known are .*\.otio"):
        load_output("a.xml")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    monkeypatch.delitem(sys.modules, "vmm.search.outputs.otio", raising=False)
    with pytest.raises(ValueError, match=r'--out a\.otio needs.*"vmm-video\[otio\]"'):
        load_output("a.otio")


def test_rows_of_json_and_csv_are_the_same(found, tmp_path):
    odd = os.fsdecode(b'/v/caf\xe9\n,".mp4')
    results = [found((odd, 0.0, 1.5), ((odd + ".tar", "b.mp4"), 1.0, 2.0), name="x"), found()]
    for kind in ("json", "csv"):
        (line,) = load_output(f"a.{kind}")(results, tmp_path / f"a.{kind}")
        assert line == f"wrote {tmp_path}/a.{kind}"
    rows = json.loads((tmp_path / "a.json").read_text())
    assert rows[0] == dict(
        zip(COLUMNS, ("x", "a red circle", "", 1, odd, "", 0.0, 1.5, 0.5, None, None), strict=True)
    )
    assert rows[1]["file"] == f"{odd}.tar/b.mp4" and rows[1]["member"] == "b.mp4"
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [list(row) for row in table] == [list(COLUMNS)] * 2
    assert table[0]["file"] == r'/v/caf\xe9\x0a,".mp4' and table[1]["similarity"] == "0.49"
    assert table[0]["match"] == ""
