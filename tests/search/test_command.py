import json
import os
import shutil
import subprocess
import sys
import tarfile

import pytest

from vmm.cli import main
from vmm.search.index import Index
from vmm.search.parts import Record

QUICK = ["--window", "1", "--stride", "0.5"]


@pytest.fixture
def made(videos, encoder_folder, tmp_path):
    index = tmp_path / "index"
    (videos / "empty.mp4").write_bytes(b"")
    encode = ["encode", str(videos), "-o", str(index), "--encoder", str(encoder_folder), *QUICK]
    assert main(encode) == 1  # one of them is empty
    return index


def failure(capsys, *words):
    capsys.readouterr()
    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:  # a mistake in the options alone
        status = stop.code
    assert status == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def output(capsys, *words, status=0):
    capsys.readouterr()
    assert main([str(word) for word in words]) == status
    return capsys.readouterr().out


def test_what_failed_is_not_said_to_be_encoded(made, videos, tmp_path, capsys):
    (videos / "noise.mp4").write_bytes(b"no video" * 100)
    assert main(["encode", str(videos), "-o", str(made)]) == 1
    text, complaint = capsys.readouterr()
    assert complaint.rstrip().endswith(
        "vmm encode: done in part: 2 videos could not be encoded, or not to the end; see the "
        "problems above"
    )
    # What is asked for counts, not what else the index knows.
    output(capsys, "encode", videos / "a.mp4", "-o", made)
    output(capsys, "encode", videos / "noise.mp4", "-o", made, status=1)
    assert text.startswith("0 videos encoded, 1 failed, 0 known by their content, 4 unchanged")
    assert "10 moments of 3 videos" in text and "problems: 2" in text
    crashed = Record("crashed.mp4", "", seconds=3600.0, done=True, problem="crashed")
    Index.open(made).add([crashed], [], [])
    facts = json.loads(output(capsys, "index", made, "--json"))
    assert facts["videos"] == 3 and facts["hours"] == pytest.approx(5.6 / 3600)


def test_encode_index_search(made, videos, capsys):
    again = ("encode", videos, "-o", made)  # encoder and windows of the index
    text = output(capsys, *again, status=1)
    assert (
        "0 videos encoded, 0 known by their content, 4 unchanged, 0 removed" in text
        and "10 moments of 3 videos" in text
    )
    assert "empty.mp4: empty: 0 bytes" in text
    facts = json.loads(output(capsys, "index", made, "--verify", "--json"))
    assert (facts["videos"], facts["moments"], facts["unfinished"]) == (3, 10, 0)
    assert facts["problems"] == [[str(videos / "empty.mp4"), "empty: 0 bytes"]]
    assert facts["hours"] == pytest.approx(5.6 / 3600) and facts["wrong"] == []
    assert "verified: nothing is wrong" in output(capsys, "index", made, "--compact", "--verify")

    words = output(capsys, "index", made)
    assert "num_frames     as the encoder was trained\n" in words and "shots          no\n" in words
    assert "None" not in words and "False" not in words

    search = ("search", made, "a red circle", "--top", 3)
    found = json.loads(output(capsys, *search, "--json"))
    lines = output(capsys, *search).splitlines()
    assert lines[0].split() == ["rank", "similarity", "time", "file"]
    assert len(found) == len(lines) - 1 == 3
    for line, hit in zip(lines[1:], found, strict=True):
        assert line.endswith(hit["file"]) and f"{hit['similarity']:.3f}" in line
    ranked = json.loads(output(capsys, *search, "--rerank", 5, "--json"))
    assert all(isinstance(hit[name], float) for hit in ranked for name in ("match", "score"))
    assert ranked == sorted(ranked, key=lambda hit: -hit["score"])
    alone = json.loads(output(capsys, *search, "--rerank", 5, "--rank-by", "matching", "--json"))
    assert alone == sorted(alone, key=lambda hit: -hit["match"])
    like = json.loads(output(capsys, "search", made, "--video", videos / "b.mkv", "--json"))
    assert like[0]["file"].endswith("b.mkv")


@pytest.mark.slow
def test_names_that_are_no_utf8_are_printed_and_found_again(
    videos, encoder_folder, tmp_path, capsys, root
):
    odd = os.fsdecode(b"caf\xe9\x1b[2J\n.mp4")
    (videos / "a.mp4").rename(videos / odd)
    with tarfile.open(videos / os.fsdecode(b"shard \xe9.tar"), "w") as tar:
        tar.add(videos / "b.mkv", os.fsdecode(b"b \xe9.mkv"))
    (videos / os.fsdecode(b"empty\xe9.mp4")).write_bytes(b"")
    index = tmp_path / "index"
    encode = ["encode", str(videos), "-o", str(index), "--encoder", str(encoder_folder), *QUICK]
    text = output(capsys, *encode, status=1)
    assert r"empty\xe9.mp4: empty: 0 bytes" in text
    assert "0 known by their content, 5 unchanged" in output(capsys, *encode, status=1)
    query = os.fsdecode(b"a red circle \xe9 \xed\xa0\xbd")
    found = json.loads(output(capsys, "search", index, query, "--top", 20, "--json"))
    assert {hit["file"] for hit in found} == {
        str(videos / name)
        for name in (odd, "b.mkv", "deep/c.AVI", os.fsdecode(b"shard \xe9.tar/b \xe9.mkv"))
    }
    for encoding in ("ascii", "utf-8"):
        run = subprocess.run(
            [sys.executable, "-m", "vmm", "search", str(index), query, "--top", "20"],
            cwd=root, capture_output=True, check=False,
            env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "LC_ALL": "C"},
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert len(run.stdout.splitlines()) == 1 + len(found) and b"\x1b" not in run.stdout
        assert rb"caf\xe9\x1b[2J\x0a.mp4" in run.stdout and rb"shard \xe9.tar" in run.stdout
    facts = json.loads(output(capsys, "index", index, "--verify", "--json"))
    assert facts["problems"] == [[str(videos / os.fsdecode(b"empty\xe9.mp4")), "empty: 0 bytes"]]


def test_changed_videos_are_told_by_the_exit_status(made, videos, capsys):
    (videos / "a.mp4").unlink()
    assert main(["index", str(made), "--verify"]) == 1
    assert "a.mp4 is not there any more" in capsys.readouterr().out


def test_duplicates_and_approximate_search(made, videos, capsys):
    shutil.copy(videos / "a.mp4", videos / "copy.mp4")
    text = output(capsys, "encode", videos, "-o", made, status=1)
    assert "0 videos encoded, 1 known by their content, 4 unchanged" in text
    found = json.loads(output(capsys, "index", made, "--duplicates", "0.99999", "--json"))
    assert found["threshold"] == 0.99999 and found["found"] == len(found["pairs"]) >= 1
    best = found["pairs"][0]
    assert [best["first"], best["second"]] == [str(videos / n) for n in ("a.mp4", "copy.mp4")]
    assert best["same_bytes"] and best["share"] == 1 and best["similarity"] > 0.999
    lines = output(capsys, "index", made, "--duplicates", "0.99999").splitlines()
    assert lines[0].startswith(" 100%  same bytes  ") and "1 pair of videos shows" in lines[-1]
    assert "above 0" in failure(capsys, "index", made, "--duplicates", "2")

    search = ("search", made, "a red circle", "--json")
    assert "--approximate` makes it" in failure(capsys, *search, "--approximate")
    facts = json.loads(output(capsys, "index", made, "--approximate", "--json"))
    assert facts["listed"] == facts["moments"]
    assert output(capsys, *search, "--approximate") == output(capsys, *search)
    lists = made / "approximate.safetensors"
    assert facts["list_megabytes"] == lists.stat().st_size / 1e6
    whole = lists.read_bytes()
    assert main(["index", str(made), "--verify"]) == 0
    lists.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    capsys.readouterr()
    assert main(["index", str(made), "--verify"]) == 1
    assert f"{lists} is damaged: its checksum is another one" in capsys.readouterr().out
    output(capsys, "index", made, "--compact")
    assert not lists.exists()  # the parts that it knew are gone
    facts = json.loads(output(capsys, "index", made, "--approximate", "--json"))
    assert facts["listed"] == facts["moments"]


def test_shots_are_kept_to(videos, encoder_folder, tmp_path, capsys):
    index = tmp_path / "shots"
    encode = ("encode", videos, "-o", index, "--encoder", encoder_folder)
    assert "--stride 1 is for" in failure(capsys, *encode, "--shots", "--stride", 1)
    output(capsys, *encode, "--shots", "--window", 2)
    facts = json.loads(output(capsys, "index", index, "--json"))
    assert (facts["shots"], facts["window"], facts["stride"]) == (True, 2, 2)
    assert facts["moments"] == 4 and "3 unchanged" in output(capsys, *encode)
    assert "--watch is for one" in failure(capsys, *encode, "--watch", "--shard", "1/2")


def test_processes_with_shares_fill_one_index(made, videos, encoder_folder, tmp_path, capsys):
    statuses = []
    for share in ("1/3", "2/3", "3/3"):
        encode = ("encode", videos, "-o", tmp_path / "shared", "--encoder", encoder_folder)
        words = (*encode, *QUICK, "--shard", share)
        statuses.append(main([str(word) for word in words]))
    capsys.readouterr()
    assert sorted(statuses) == [0, 0, 1]  # that whose share the empty one is in
    facts = json.loads(output(capsys, "index", tmp_path / "shared", "--json"))
    assert facts["moments"] == 10 and len(facts["problems"]) == 1


@pytest.mark.slow
def test_a_cluster_fills_one_index(made, videos, encoder_folder, tmp_path, capsys, ray_cluster):
    spread = tmp_path / "spread"
    encode = ("encode", videos, "-o", spread, "--encoder", encoder_folder, *QUICK, "--ray", 2)
    first = output(capsys, *encode, status=1)
    assert "3 videos encoded, 1 failed, 0 known by their content" in first
    again = output(capsys, *encode, status=1)
    assert "0 videos encoded, 0 known by their content, 4 unchanged" in again
    search = ("a red circle", "--top", 10, "--json")
    found, same = (json.loads(output(capsys, "search", i, *search)) for i in (spread, made))
    assert [hit["similarity"] for hit in found] == pytest.approx([h["similarity"] for h in same])
    assert [(h["file"], h["start"]) for h in found] == [(h["file"], h["start"]) for h in same]
    (videos / "a.mp4").unlink()
    assert "0 encoded, 0 known by their content, 3 unchanged, 1 removed" in output(
        capsys, *encode, status=1
    ).replace("videos ", "")


def test_ray_is_asked_for(videos, encoder_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    encode = ("encode", videos, "-o", tmp_path / "new", "--encoder", encoder_folder, "--ray", 2)
    assert 'pip install "vmm-video[ray]"' in failure(capsys, *encode)


def test_mistakes_are_told_with_a_remedy(
    made, videos, encoder_folder, another_encoder_folder, tmp_path, capsys
):
    new = ("encode", videos, "-o", tmp_path / "new")
    assert "say --encoder" in failure(capsys, *new)
    assert "must be I/N" in failure(capsys, *new, "--shard", "0/2")
    assert "leaves --shard to it" in failure(capsys, *new, "--shard", "1/2", "--ray", "2")
    assert "'-1' is no whole number of 0 or more" in failure(capsys, *new, "--ray", "-1")
    assert "--window: '-1' is not above 0" in failure(capsys, *new, "--window", "-1")
    chosen = ("--encoder", encoder_folder)
    assert "leaves gaps" in failure(capsys, *new, *chosen, "--window", 2, "--stride", 3)
    assert not (tmp_path / "new").exists()
    assert "made with window 1.0" in failure(capsys, "encode", videos, "-o", made, "--window", 2)
    other = ("--encoder", another_encoder_folder)
    assert "another index" in failure(capsys, "encode", videos, "-o", made, *other)
    assert "another index" in failure(capsys, "search", made, "x", *other)
    assert "say what to look for" in failure(capsys, "search", made)
    assert "--top: '0' is no whole" in failure(capsys, "search", made, "x", "--top", 0)
    assert "cannot read" in failure(capsys, "search", made, "--video", tmp_path / "no.mp4")
    assert "no index" in failure(capsys, "search", videos, "x")
    assert "no index" in failure(capsys, "index", tmp_path / "nothing")
    half = tmp_path / "half"
    shutil.copytree(encoder_folder, half)
    (half / "model.safetensors").unlink()
    assert "has no model.safetensors" in failure(capsys, "search", made, "x", "--encoder", half)
    (made / "index.json").write_text("[1]")
    assert "damaged" in failure(capsys, "search", made, "x")


@pytest.mark.parametrize("command", ["encode", "index", "search", "app"])
def test_help_loads_nothing_heavy(command):
    code = (
        f"import sys; from vmm.cli import main\ntry: main([{command!r}, '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'transformers', 'gradio', 'av'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"usage: vmm {command}" in result.stdout


def test_a_missing_extra_is_named(made, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "vmm.search.app.serve", raising=False)
    told = failure(capsys, "app", made)
    assert 'pip install "vmm-video[app]"' in told
    # What takes long to load is named before.
    assert told.startswith(f"loading the page, {made} and its encoder /")
