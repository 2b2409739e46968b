import csv
import io
import json
import subprocess
import sys

import pytest

from tests.search.test_command import QUICK, failure
from vmm.cli import main
from vmm.search.results import COLUMNS


@pytest.fixture(scope="module")
def index(encoder_folder, tmp_path_factory):
    """An index of three videos, and the folder of these."""
    from tests.data.videos import encode_video, moving_picture

    folder = tmp_path_factory.mktemp("searched")
    (folder / "videos" / "deep").mkdir(parents=True)
    for number, (name, frames) in enumerate((("a.mp4", 32), ("b.mp4", 4), ("deep/c.mp4", 20))):
        data = encode_video(moving_picture(frames, seed=number), rate=10)
        (folder / "videos" / name).write_bytes(data)
    words = [str(folder / "videos"), "-o", str(folder / "index")]
    assert main(["encode", *words, "--encoder", str(encoder_folder), *QUICK]) == 0
    return folder / "index"


@pytest.fixture
def search(index, capsys):
    """Run the command; returns what it prints to both streams."""

    def search(*words, status=0):
        capsys.readouterr()
        assert main(["search", str(index), *map(str, words)]) == status
        return capsys.readouterr()

    return search


def test_table_json_and_csv_say_the_same(search):
    words = ("a red circle", "--rerank", 2, "--top", 4)
    rows = json.loads(search(*words, "--json").out)
    assert [list(row) for row in rows] == [list(COLUMNS)] * 4
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert [row["match"] is None for row in rows] == [False, False, True, True]
    table = list(csv.DictReader(io.StringIO(search(*words, "--csv").out)))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == table
    header, *lines = search(*words).out.splitlines()
    assert header.split() == ["rank", "similarity", "match", "score", "time", "file"]
    for line, row in zip(lines, rows, strict=True):
        assert line.split()[0] == str(row["rank"]) and line.endswith(row["file"])
        assert header.index("file") == line.index(row["file"])
        assert line.split()[2] == ("-" if row["match"] is None else f"{row['match']:.2f}")


def test_words_that_the_encoder_cannot_read_are_said(search):
    told = search("a red xylophone", "--top", 1).err
    assert (
        "does not know 'xylophone': what it finds for them is chance" in told and "red" not in told
    )
    assert "reads 8 tokens, and the longest sentence has 42" in search("red " * 40, "--top", 1).err
    assert search("a red circle", "--top", 1).err == ""
    # What a terminal makes of bytes that are no UTF-8, and half an emoji.
    assert search("\udcff", "--top", 1).err == ""
    assert "does not know 'xylophone'" in search("a \ud83d xylophone", "--top", 1).err


def test_filters_and_a_sentence_with_a_video(search, index):
    videos = index.parent / "videos"

    def rows(*words):
        return json.loads(search("a red circle", "--top", 20, "--json", *words).out)

    everything = rows()
    assert {row["file"] for row in rows("--folder", "deep")} == {str(videos / "deep" / "c.mp4")}
    assert all(row["end"] > 1.2 for row in rows("--after", 1.2)) and rows("--after", 1.2)
    assert all(row["start"] < 0.5 for row in rows("--before", 0.5)) and rows("--before", 0.5)
    long = rows("--min-duration", 1, "--max-duration", 2.5)
    assert {row["file"] for row in long} == {str(videos / "deep" / "c.mp4")}
    both, alone = rows("--video", videos / "b.mp4"), search("--video", videos / "b.mp4", "--json")
    assert both[0]["video"].endswith("b.mp4") and both[0]["text"] == "a red circle"
    similar = {row["file"]: row["similarity"] for row in json.loads(alone.out)}
    assert both[0]["similarity"] not in (everything[0]["similarity"], *similar.values())
    said = search("a circle", "--folder", "nowhere")
    assert said.out == "" and said.err == f"the filters leave no moment of {index}\n"


def test_many_queries_carry_their_query_and_none_is_lost(search, index, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    table = tmp_path / "q.csv"
    lines = ["id,text,video", "x,a red circle,", "bad,,bad.mp4", "empty,,", "y,red,"]
    table.write_text("\n".join([*lines, f"z,,{index.parent / 'videos' / 'b.mp4'}"]))
    said = search("--queries", table, "--top", 2, "--json", status=1)
    assert said.err.endswith("done in part: 2 of 5 queries not answered, as listed above\n")
    rows = json.loads(said.out)
    assert [(row["query"], row["rank"]) for row in rows] == [
        ("x", 1), ("x", 2), ("y", 1), ("y", 2), ("z", 1), ("z", 2),
    ]  # fmt: skip
    assert rows[4]["file"].endswith("b.mp4") and rows[4]["similarity"] == pytest.approx(1, abs=1e-4)
    alone = json.loads(search("red", "--top", 2, "--json").out)
    assert [{**row, "query": "y"} for row in alone] == rows[2:4]
    assert "rows left out: 1\n" in said.err and "queries not answered: 1\n  bad: " in said.err
    text = search("--queries", table, "--top", 1, status=1).out
    titles = [line for line in text.splitlines() if line and not line.startswith((" ", "rank"))]
    assert titles[:2] == ["x: a red circle", "y: red"] and titles[2].startswith("z: like ")


def test_hits_go_out_while_rows_are_printed(search, tmp_path):
    outs = [tmp_path / name for name in ("hits.otio", "hits.edl", "hits.vtt", "hits.csv")]
    words = [word for out in outs for word in ("--out", out)]
    said = search("red", "--json", *words, "--out", f"{tmp_path}/my.clips/")
    rows = json.loads(said.out)
    assert all(out.exists() for out in (*outs[:1], outs[3])) and list(tmp_path.glob("hits*.edl"))
    kept = json.loads((tmp_path / "my.clips" / "hits.json").read_text())
    assert [{k: row[k] for k in COLUMNS} for row in kept] == rows
    assert all((tmp_path / "my.clips" / row["clip"]).stat().st_size for row in kept)
    assert said.err.count("wrote ") >= 5


def test_mistakes(index, tmp_path, capsys):
    search = ("search", index)
    assert "say what to look for" in failure(capsys, *search, "x", "--queries", "q.txt")
    assert "say what to look for" in failure(capsys, *search, " ")
    assert "not allowed with" in failure(capsys, *search, "x", "--json", "--csv")
    assert "is of no known kind" in failure(capsys, *search, "x", "--out", "hits.xml")
    assert "is not a file" in failure(capsys, *search, "--queries", tmp_path / "none.txt")
    assert "after -1.0 must be" in failure(capsys, *search, "x", "--after", "-1")
    assert "exchange them" in failure(capsys, *search, "x", "--after", 3, "--before", 2)
    video = ("--video", tmp_path / "none.mp4")
    assert "give text too" in failure(capsys, *search, *video, "--rerank", 3)
    (tmp_path / "q.jsonl").write_text('{"video": "none.mp4"}\n')
    assert "none.mp4" in failure(capsys, *search, "--queries", tmp_path / "q.jsonl")


def test_wrong_names_are_told_before_torch_is_loaded(index):
    calls = {
        "no.txt is not a file": ["search", str(index), "--queries", "no.txt"],
        "hits.xml is of no known kind": ["search", str(index), "x", "--out", "hits.xml"],
        "nowhere has no index.json": ["search", "nowhere", "x"],
        "elsewhere has no index.json": ["app", "elsewhere"],
        "shots need PySceneDetect": ["encode", "x", "-o", "new", "--encoder", "x", "--shots"],
    }
    code = (
        "import sys; from vmm.cli import main; sys.modules['scenedetect'] = None\n"
        f"for call in {list(calls.values())!r}: assert main(call) == 2, call\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line, said in zip(done.stderr.splitlines(), calls, strict=True):
        assert said in line
