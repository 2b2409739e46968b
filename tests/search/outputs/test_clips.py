import json
import os
import tarfile

import av
import pytest

from vmm.search.outputs.clips import write


def test_films_with_safe_names_of_files_and_shards(film, found, tmp_path):
    odd = film(os.fsdecode(b"..- caf\xe9;$(rm)\n\xf0\x9f\x8e\xac.mp4"))
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w") as tar:
        tar.add(film("b.mp4", 12), "deep/b.mp4")
    results = [
        found((odd, 0.0, 0.5), ((shard, "deep/b.mp4"), 0.25, 1.0), name="a/b"),
        found((odd, 0.0, 0.5), name="a b", text="another"),
    ]
    said = write(results, tmp_path / "clips")
    assert said == [f"wrote 3 films and hits.json to {tmp_path / 'clips'}"]
    names = {path.name for path in (tmp_path / "clips").iterdir()} - {"hits.json"}
    assert names == {
        "a_b_001_caf_rm_0.0-0.5s.mp4", "a_b_002_b_0.2-1.0s.mp4", "a_b_001_caf_rm_0.0-0.5s-2.mp4",
    }  # fmt: skip
    rows = json.loads((tmp_path / "clips" / "hits.json").read_text())
    assert [row["clip"] for row in rows] == [
        "a_b_001_caf_rm_0.0-0.5s.mp4", "a_b_002_b_0.2-1.0s.mp4", "a_b_001_caf_rm_0.0-0.5s-2.mp4",
    ]  # fmt: skip
    assert os.fsencode(rows[0]["file"]) == os.fsencode(odd) and rows[1]["member"] == "deep/b.mp4"
    for row in rows:
        with av.open(tmp_path / "clips" / row["clip"]) as container:
            seconds = len(list(container.decode(video=0))) / 12
        assert seconds == pytest.approx(row["end"] - row["start"], abs=0.1)


def test_what_cannot_be_cut_is_counted_and_kept_in_the_rows(film, found, tmp_path):
    lost = film("lost.mp4")
    result = found((lost, 0.0, 0.5), (film("a.mp4"), 0.0, 0.5))
    lost.unlink()
    said = write([result], tmp_path / "clips")
    assert said[0].startswith("wrote 1 film ") and said[1].startswith("left out 1 of 2 hits: ")
    rows = json.loads((tmp_path / "clips" / "hits.json").read_text())
    assert "No such file" in rows[0]["problem"] and "clip" not in rows[0]
    assert rows[1]["clip"] == "002_a_0.0-0.5s.mp4"
    with pytest.raises(ValueError, match="is not an empty folder"):
        write([result], tmp_path / "clips")
    with pytest.raises(ValueError, match=r"none of the hits can be cut: .*lost\.mp4"):
        write([found((lost, 0.0, 0.5))], tmp_path / "none")
    assert not (tmp_path / "none").exists()
