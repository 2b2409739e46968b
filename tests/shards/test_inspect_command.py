import io
import json
import os
import subprocess
import sys
import tarfile

from tests.shards import clips
from vmm.shards.command import main_inspect as main


def test_odd_texts_and_names_are_told_and_shown(tmp_path, root):
    picture = clips.write_picture(tmp_path / "c.jpg", 9).read_bytes()
    long = json.dumps({"caption": "a cat", "more": "x" * 3 * 2**20}).encode()
    texts = {
        "caf\udce9\x1b": ("json", b'{"caption": "half \\ud83d"}'),
        "marked": ("txt", "a dog".encode("utf-16")),
        "latin": ("txt", b"caf\xe9"),
        "latin-json": ("json", b'{"caption": "caf\xe9"}'),
        "long": ("json", long),
        "twin": ("txt", b"a twin"),
        "._twin": ("txt", b"\0\5\x16\7Mac"),
    }
    shard = tmp_path / os.fsdecode(b"shard \xe9.tar")
    with tarfile.open(shard, "w") as tar:
        for key, (extension, text) in texts.items():
            for name, content in ((f"{key}.jpg", picture), (f"{key}.{extension}", text)):
                header = tarfile.TarInfo(name)
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    out = tmp_path / os.fsdecode(b"out \xe9\x1b")
    done = subprocess.run(
        [sys.executable, "-m", "vmm", "shards", "inspect", str(shard), "-o", str(out),
         "--workers", "1"],
        cwd=root, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert rb"page: " in done.stdout and rb"out \xe9\x1b/index.html" in done.stdout
    numbers = json.loads((out / "report.json").read_bytes())
    assert numbers["samples"]["count"] == 6 and numbers["samples"]["usable"] == 4
    assert numbers["shards"]["ignored_members"] == {"left by a system": 2}
    problems = [(p["key"], p["reason"]) for p in numbers["problems"]["examples"]]
    assert problems == [("latin", "bad caption"), ("latin-json", "bad caption")]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert r"caf\xe9\x1b" in page and "half \ufffd" in page and "a dog" in page


def test_nothing_usable_still_makes_a_report(tmp_path, capsys):
    (tmp_path / "x.tar").write_bytes(b"")
    assert main([str(tmp_path / "x.tar"), "-o", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert "1 shard, 0 B, 1 damaged\n0 samples" in capsys.readouterr().out
    assert not (tmp_path / "out/contact_sheet.png").exists()
    assert main([str(tmp_path / "nobody.tar"), "-o", str(tmp_path / "out")]) == 2
    assert "matches no file" in capsys.readouterr().err


def test_no_torch_is_needed():
    check = "import sys, vmm.shards.command; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
