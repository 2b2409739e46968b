import io
import json
import re
import tarfile
from contextlib import closing
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from tests.browser import Browser
from tests.shards import clips
from vmm.shards.inspection import InspectOptions, in_words, inspect_shards
from vmm.shards.shard_statistics import inspect_shard


def write_tar(path, members):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path):
    """Two whole shards, one cut, one of noise: eight samples of which five are good."""

    def clip(name, numbers, **more):
        return clips.write_clip(tmp_path / name, numbers, **more).read_bytes()

    long = clip("a.mp4", [1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3])  # 1.2 s; 2 in the middle
    short = clip("b.mkv", [7] * 4, size=(48, 64))  # 0.4 s
    picture = clips.write_picture(tmp_path / "c.jpg", 9, size=(30, 40)).read_bytes()
    folder = tmp_path / "shards"
    folder.mkdir()
    failed = {"status": "failed_to_download", "error_message": "HTTP Error 404"}
    write_tar(folder / "0.tar", [
        ("0.mp4", long), ("0.txt", b"a b c"),
        ("1.mkv", short), ("1.json", json.dumps({"caption": ["a b c", "dé 視"]}).encode()),
        ("2.txt", b"gone"), ("2.json", json.dumps(failed).encode()),
        ("readme.md", b"?"),
    ])  # fmt: skip
    write_tar(folder / "1.tar", [
        ("3.jpg", picture), ("3.txt", b"<b>bold</b> & more"),
        ("4.mp4", long[:600]), ("4.txt", b"broken"),
        ("5.mp4", long), ("5.txt", b"  "),
        ("6.jpg", b"no picture"), ("6.txt", b"x"),
    ])  # fmt: skip
    whole = write_tar(tmp_path / "x.tar", [("7.jpg", picture), ("7.txt", b"y"), ("8.mp4", long)])
    (folder / "2.tar").write_bytes(whole.read_bytes()[:3500])
    (folder / "3.tar").write_bytes(np.random.default_rng(0).bytes(5000))
    return folder


def test_every_number(shards, tmp_path):
    numbers = inspect_shards(InspectOptions(f"{shards}/*.tar", tmp_path / "out"))
    assert json.loads((tmp_path / "out/report.json").read_text()) == asdict(numbers)
    assert numbers.samples == {
        "count": 8, "usable": 4, "video": 4, "image": 3, "without_media": 1,
    }  # fmt: skip
    shard = numbers.shards
    assert shard["count"] == 4 and shard["bytes"] == sum(p.stat().st_size for p in shards.iterdir())
    assert [path[-5:] for path in shard["damaged"]] == ["2.tar", "3.tar"]
    assert shard["damaged"][f"{shards}/2.tar"].startswith("cut inside a member")
    assert shard["ignored_members"] == {"not part of a sample": 1}
    media = numbers.media
    assert media["codecs"] == {"h264": 3, "jpeg": 2}
    assert media["sizes"] == {"48x32": 2, "40x30": 2, "64x48": 1}
    seconds = media["seconds"]
    assert (seconds["count"], round(seconds["total"], 3)) == (3, 2.8)
    assert (round(seconds["min"], 3), round(seconds["median"], 3)) == (0.4, 1.2)
    assert numbers.problems["by_reason"] == {"unreadable": 2, "no media": 1, "no caption": 1}
    found = {(p["key"], p["reason"]) for p in numbers.problems["examples"]}
    assert found == {
        ("2", "no media"), ("4", "unreadable"), ("5", "no caption"), ("6", "unreadable"),
    }  # fmt: skip
    assert numbers.problems["examples"][0]["detail"] == "HTTP Error 404"
    captions = numbers.captions
    assert (captions["count"], captions["distinct"], captions["samples_without"]) == (8, 7, 1)
    assert captions["repeated"] == {
        "texts": 1, "uses": 2, "most_common": [{"text": "a b c", "count": 2}],
    }  # fmt: skip
    assert captions["per_sample"]["max"] == 2 and captions["words"]["max"] == 3
    assert captions["characters"]["max"] == len("<b>bold</b> & more")


def test_a_browser_shows_the_page(shards, tmp_path, look_at):
    inspect_shards(InspectOptions(f"{shards}/*.tar", tmp_path / "out"))
    look_at(tmp_path / "out/index.html")
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "1 sample has none" in page
    assert page.count("highest bar: ") == page.count('class="bars"') > 3


def test_cards_are_even_and_none_is_empty(shards, tmp_path, chromium):
    inspect_shards(InspectOptions(f"{shards}/*.tar", tmp_path / "out"))
    with closing(Browser(chromium, tmp_path / "profile", 1280, 900)) as browser:
        browser.show(tmp_path / "out/index.html")
        tiles = "[...document.querySelectorAll('.tiles .card')]"
        assert browser.evaluate(f"new Set({tiles}.map(c => c.offsetHeight)).size") == 1
        tops = browser.evaluate(f"{tiles}.map(c => c.offsetTop)")
        assert sorted(map(tops.count, set(tops))) == [4, 4]
        cards = "[...document.querySelectorAll('.charts .card')]"
        shown = "c => c.querySelector('.bars, td')"
        assert browser.evaluate(f"{cards}.length > 3 && {cards}.every({shown})")


def test_what_is_wrong_can_be_read_on_a_phone(shards, tmp_path, chromium):
    inspect_shards(InspectOptions(f"{shards}/*.tar", tmp_path / "out"))
    with closing(Browser(chromium, tmp_path / "profile", 390, 900)) as browser:
        browser.show(tmp_path / "out/index.html")
        cells = "[...document.querySelectorAll('td:nth-child(3)')]"
        widths = browser.evaluate(f"{cells}.map(c => c.offsetWidth)")
        assert len(widths) == 6 and min(widths) > 180
        ends = "[...document.querySelectorAll('.ends span:not(:nth-child(2))')]"
        heights = browser.evaluate(f"{ends}.map(e => e.offsetHeight)")
        assert len(heights) > 6 and max(heights) < 24, "a number and its unit are in one line"
        gap = "document.querySelector('.charts + .scroll').getBoundingClientRect().top"
        gap += " - document.querySelector('.charts:has(+ .scroll)').getBoundingClientRect().bottom"
        assert browser.evaluate(gap) >= 10


def test_the_page_needs_nothing_else_and_trusts_nothing(shards, tmp_path):
    inspect_shards(InspectOptions(f"{shards}/*.tar", tmp_path / "out"))
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; more" in page and "<b>bold" not in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page) and "http" not in re.sub(
        "http-equiv|HTTP Error 404", "", page
    )
    assert "HTTP Error 404" in page and "cut inside a member" in page
    assert len(re.findall("data:image/jpeg;base64,", page)) == 5


def test_the_pictures_are_from_the_middle(shards, tmp_path):
    inspect_shards(InspectOptions(f"{shards}/*.tar", tmp_path / "out"))
    content = inspect_shard(str(shards / "0.tar"), [0])
    (thumbnail,) = content.thumbnails
    picture = np.asarray(Image.open(io.BytesIO(thumbnail.jpeg)))
    assert clips.number_of(picture) == 2 and (thumbnail.key, thumbnail.caption) == ("0", "a b c")
    sheet = np.asarray(Image.open(tmp_path / "out/contact_sheet.png").convert("RGB"))
    # One row of five cells: the middle of each picture has its sample's colour.
    cells = [sheet[12 + 70, 12 + 105 + i * 222] for i in range(5)]
    assert [clips.number_of(cell[None, None]) for cell in cells] == [2, 7, 9, 2, 9]


def test_pictures_are_spread_over_all_samples(tmp_path):
    picture = clips.write_picture(tmp_path / "c.jpg", 9).read_bytes()
    for shard, count in enumerate((1, 8, 0, 3)):
        members = [(f"{shard}{i}.jpg", picture) for i in range(count)]
        write_tar(tmp_path / f"{shard}.tar", members)
    inspect_shards(InspectOptions(f"{tmp_path}/*.tar", tmp_path / "out", pictures=4))
    page = (tmp_path / "out/index.html").read_text()
    assert re.findall(r'<span class="soft">(\d+)</span></fig', page) == ["10", "13", "16", "31"]


def test_pictures_have_the_names_of_their_files_and_what_never_varies_has_no_bars(tmp_path):
    picture = clips.write_picture(tmp_path / "c.jpg", 9).read_bytes()
    named = json.dumps({"caption": "a b", "media": "holiday <1>.jpg"}).encode()
    members = [("0.jpg", picture), ("0.json", named), ("1.jpg", picture), ("1.txt", b"c d")]
    write_tar(tmp_path / "0.tar", members)
    inspect_shards(InspectOptions(f"{tmp_path}/0.tar", tmp_path / "out"))
    page = (tmp_path / "out/index.html").read_text()
    assert re.findall(r'<span class="soft">([^<]+)</span></fig', page) == [
        "holiday &lt;1&gt;.jpg, 0", "1",
    ]  # fmt: skip
    assert '<div class="bars">' not in page and "Words: all 2." in page
    assert "<h1>2 samples in 1 shard</h1>" in page and "Samples per shard" not in page


def test_more_processes_give_the_same(shards, tmp_path):
    outs = [tmp_path / name for name in ("one", "two")]
    for out, workers in zip(outs, (1, 2), strict=True):
        inspect_shards(InspectOptions(f"{shards}/*.tar", out, workers=workers))
    for name in ("report.json", "index.html", "contact_sheet.png"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()


def test_a_tokenizer_says_what_it_makes_of_the_captions(shards, tmp_path, root):
    named = {"tokenizer": root / "recipes/encoders/bert_demo", "max_words": 5}
    numbers = inspect_shards(InspectOptions(f"{shards}/*.tar", tmp_path / "out", **named))
    found = numbers.captions["tokenizer"]
    assert found["captions"] == numbers.captions["count"] and found["cut"] > 0
    assert found["unknown_examples"] == ["視"] and len(found["said"]) == 3
    page = (tmp_path / "out/index.html").read_text()
    assert "are cut to max_words 5" in page and "are cut to max_words 5" in in_words(numbers)
    assert json.loads((tmp_path / "out/report.json").read_text()) == asdict(numbers)
