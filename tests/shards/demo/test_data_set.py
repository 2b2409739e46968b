import json
import tarfile
from dataclasses import dataclass, replace

import pytest

from vmm.shards.demo.data_set import Arguments, DataSet, number


@dataclass(frozen=True)
class Numbers(Arguments):
    """Of a data set that is cheap to make."""

    even = ("wide",)
    seed: int = number(0, "seed of everything random")
    wide: int = number(2, "letters per sample")
    most: int = number(5, "samples of the larger split")


def make_sample(job, arguments):
    return [(f"{job}.txt", (str(job) * arguments.wide).encode())]


LETTERS = DataSet(
    prog="python -m letters",
    description="Make letters.",
    version=3,
    arguments=Numbers,
    unit="letter",
    plan=lambda arguments: {"large": list(range(arguments.most)), "small": [7]},
    deal=lambda jobs: [jobs[i : i + 2] for i in range(0, len(jobs), 2)],
    make_sample=make_sample,
    texts=lambda splits, arguments: {"list.txt": ",".join(map(str, splits["large"]))},
)


def test_every_sample_is_in_its_shard_and_in_order(tmp_path):
    out = tmp_path / "out"
    assert LETTERS.make(out, Numbers(wide=4))
    found = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            found[path.name] = [tar.extractfile(member).read().decode() for member in tar]
    assert found == {
        "large-000000.tar": ["0000", "1111"],
        "large-000001.tar": ["2222", "3333"],
        "large-000002.tar": ["4444"],
        "small-000000.tar": ["7777"],
    }
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["version"], manifest["letters"]) == (3, {"large": 5, "small": 1})
    assert manifest["arguments"] == {"seed": 0, "wide": 4, "most": 5}
    assert list(manifest["shards"]) == list(found)
    assert (out / "list.txt").read_text() == "0,1,2,3,4"


def test_more_processes_make_the_same(tmp_path):
    for workers in (1, 2):
        LETTERS.make(tmp_path / str(workers), Numbers(most=40), workers)
    one, two = ((tmp_path / name / "manifest.json").read_bytes() for name in "12")
    assert one == two and len(json.loads(one)["shards"]) == 21


def test_outdated_and_incomplete_data_are_made_again_and_foreign_only_if_asked(tmp_path):
    out = tmp_path / "out"
    assert LETTERS.make(out, Numbers()) and not LETTERS.make(out, Numbers())
    (out / "small-000000.tar").unlink()
    assert LETTERS.make(out, Numbers()) and (out / "small-000000.tar").is_file()
    assert replace(LETTERS, version=4).make(out, Numbers())
    with pytest.raises(ValueError, match="give another --out, or --overwrite"):
        LETTERS.make(out, Numbers(seed=1))
    assert LETTERS.make(out, Numbers(seed=1), overwrite=True)
    (out / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="is not empty"):
        LETTERS.make(out, Numbers(seed=1))


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("vmm.shards.demo.data_set.write_shard", fail)
    with pytest.raises(KeyboardInterrupt):
        LETTERS.make(tmp_path / "out", Numbers())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seed": -1}, "--seed is -1; give a positive number"),
        ({"most": 0}, "--most is 0; give a positive number"),
        ({"wide": 3}, "--wide is 3; give an even number"),
    ],
)
def test_numbers_that_do_not_fit(wrong, said):
    with pytest.raises(ValueError, match=said):
        Numbers(**wrong)


def test_every_number_is_an_option(tmp_path, capsys):
    out = tmp_path / "out"
    assert LETTERS.command(["--out", str(out), "--most", "1", "--workers", "1"]) == 0
    assert capsys.readouterr().out == f"{out} is complete\n"
    assert json.loads((out / "manifest.json").read_text())["letters"]["large"] == 1
    with pytest.raises(SystemExit):
        LETTERS.command(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--wide WIDE letters per sample (default: 2)" in said and "Make letters." in said
