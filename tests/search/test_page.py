"""What the page and its API do, without a browser."""

import csv
import io
import json
import os
import tarfile
import threading
from pathlib import Path
from zipfile import ZipFile

import av
import numpy as np
import pytest
from PIL import Image

from tests import app_pictures
from tests.data.videos import encode_video
from tests.search.plain import PlainEncoder
from vmm.search.encode import encode_videos
from vmm.search.find import Query, find
from vmm.search.query import Searcher
from vmm.wording import check_captions

gradio = pytest.importorskip("gradio", reason="gradio is not installed")

from starlette.responses import Response  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from vmm.search.app import serve  # noqa: E402
from vmm.search.app.actions import Actions  # noqa: E402
from vmm.search.app.api import api  # noqa: E402
from vmm.search.app.examples import example_queries  # noqa: E402
from vmm.search.app.favourites import files_of, kept  # noqa: E402
from vmm.search.app.guard import Guard  # noqa: E402
from vmm.search.app.layout import told  # noqa: E402
from vmm.search.app.page import Page  # noqa: E402
from vmm.search.app.words import heading  # noqa: E402

UNKNOWN = 1


def words(texts):
    """Tokens of texts; nobody knows what a xylophone is, and a zebra is five letters."""
    pieces = {"xylophone": [UNKNOWN], "zebra": [3, 4, 5, 6, 7], "zebras": [3, 4]}
    return [[0, *(p for w in text.split() for p in pieces.get(w, [2])), 0] for text in texts]


class Encoder(PlainEncoder):
    """Texts have the vector of a white picture."""

    class model:
        class text_encoder:
            @staticmethod
            def fusing(remedy):
                raise ValueError(f"no layer looks at a video; {remedy}")

            @staticmethod
            def check_captions(texts):
                return check_captions(texts, words, 100, UNKNOWN)

    def encode_text(self, texts):
        return np.full((len(texts), 24), 24**-0.5, np.float32)


NO_LIMITS = (None,) * 4


def film(colour, frames=20):
    return encode_video(np.full((frames, 32, 32, 3), colour, np.uint8), rate=10)


def colour_of(path):
    """The one value of all pixels of a film."""
    with av.open(path) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    (value,) = np.unique(frames)
    return int(value)


@pytest.fixture
def page(tmp_path, new_index):
    """Two shards whose members have one name, an absolute one, and show different colours."""
    name = str(tmp_path / os.fsdecode(b"caf\xe9") / "a")
    for shard, colour in (("a.tar", 250), ("b.tar", 60)):
        with tarfile.open(tmp_path / shard, "w") as tar:
            caption = f"colour {colour}".encode()
            for extension, data in (("mp4", film([colour] * 3, 40)), ("txt", caption)):
                info = tarfile.TarInfo(f"{name}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    index = new_index(window=1.0, stride=1.0)
    encode_videos(index, Encoder(), [tmp_path / "a.tar", tmp_path / "b.tar"])
    (tmp_path / "films").mkdir()
    searcher = Searcher(type(index).open(index.folder), Encoder())
    return Page(Actions(searcher, tmp_path / "films"))


def searched(page, text="white", clip=None, top=3, again="", folder="", limits=NO_LIMITS):
    return page.find(text, clip, top, again, folder, *limits)


def test_members_of_one_name_in_two_shards_are_two_films(page, tmp_path):
    shown, found, number, _, about, said = searched(page, top=20)
    shards = [hit.source.path.name for hit in found.hits]
    assert set(shards) == {"a.tar", "b.tar"} and len(found.hits) == len(shown) == 8
    films = [path for path, _ in shown]
    assert {os.path.dirname(f) for f in films} == {str(tmp_path / "films")}
    # Not their bytes: of the same pictures x264 does not always make the same ones.
    assert len(set(films)) == 8 and {colour_of(path) for path in films} == {250, 60}
    texts = {page.inspect(found, n)[1] for n in range(8)}
    assert len(texts) == 8 and about == page.inspect(found, number)[1]
    # What the browser gets can be sent to it.
    assert all(json.dumps(t, ensure_ascii=False).encode() and r"caf\xe9" in t for t in texts)
    assert 'role="status"' in said and "8 moments" in said


def test_file_time_and_the_score_that_ordered_it_are_under_every_film(page, monkeypatch):
    shown, found = searched(page)[:2]
    for rank, (hit, (_, caption)) in enumerate(zip(found.hits, shown, strict=True), 1):
        name, when, score = caption.split("\n")
        assert (name, when) == (f"{rank}. a.mp4", hit.when)
        assert score == f"similarity {hit.similarity:.3f}"

    class Fusing(Encoder.model.text_encoder):
        fusing = staticmethod(lambda remedy: None)

    class Model:
        text_encoder = Fusing()
        mixture = staticmethod(lambda similarity, match: similarity + match)

    def clips(source, hits):
        return [] if source.path.name == "b.tar" else [hit.start for hit in hits]

    monkeypatch.setattr(Encoder, "model", Model)
    monkeypatch.setattr(page.actions.searcher, "_clips", clips)
    logits = lambda self, texts, clips, by: np.array([clips], np.float32)  # noqa: E731
    monkeypatch.setattr(Encoder, "score_all", logits, raising=False)
    for again, line in (
        ("mixture", "score 3.99 of similarity 0.992 and match 3.00"),
        ("matching", "match 3.00, similarity 0.992"),
    ):
        shown, found, _, _, about, _ = searched(page, top=8, again=again)
        scores = [hit.score for hit in found.hits if hit.score is not None]
        assert scores == sorted(scores, reverse=True) and len(scores) == 4
        captions = [caption for _, caption in shown]
        similarity = f"{found.hits[0].similarity:.3f}"
        assert captions[0].split("\n")[2] == line.replace("0.992", similarity).replace(
            "3.99", f"{found.hits[0].similarity + 3:.2f}"
        )
        assert all(caption.endswith(", not looked at again") for caption in captions[4:])
        assert f"ordered by: {scores[0]:.2f}" in about and "match: 3.00" in about


def test_more_moments_leave_the_first_ones_in_their_place(page):
    first = searched(page, top=2)
    shown, found = page.more(first[1])[:2]
    assert len(shown) == 8 and shown[:2] == first[0]
    assert found.hits == searched(page, top=14)[1].hits
    assert "; there are no more" not in first[-1] and "; there are no more" in page.more(found)[-1]
    can = [[button["interactive"] for button in page.may_go_on(f)] for f in (first[1], found)]
    assert can == [[True] * 3, [False, True, True]]


def test_one_moment_is_no_moments(page):
    *_, said = searched(page, folder="b.tar", limits=(3, 0, 1, 9))
    assert "1 moment for" in said
    found = searched(page)[1]
    _, _, said, *_, beside = page.keep_one([], found, 0)
    assert "1 moment kept" in said and "Favourites: 1 moment kept" in beside


def test_one_moment_is_no_curve(page, tmp_path):
    """It would be a level line, beside which its height stands with six decimals."""
    (tmp_path / "own.mp4").write_bytes(film([250] * 3, 10))
    shown, curve, said = page.ask(str(tmp_path / "own.mp4"), "white", 1.0, 3)
    assert len(shown) == 1 and curve is None
    assert "1 moment of 1.0 s in all, with a similarity 0." in said
    _, curve, said = page.ask(str(tmp_path / "own.mp4"), "white", 0.5, 3)
    assert len(curve) > 2 and "compared; the best is at" in said
    assert all(level == round(level, 3) for level in curve["similarity"])


def test_a_film_that_is_gone_is_counted_and_the_others_are_shown(page, tmp_path, caplog):
    caplog.set_level("INFO", "vmm")
    (tmp_path / "b.tar").unlink()
    shown, found, _, _, _, said = searched(page, top=8)
    assert len(shown) == len(found.hits) == 4 and "4 of them cannot be read now" in said
    assert [caption.split(".")[0] for _, caption in shown] == ["1", "2", "3", "4"]
    assert caplog.text.encode().count(rb"caf\xe9") >= 4


def test_the_end_waits_for_work_and_lets_no_more_begin(page):
    ended, more = threading.Thread(target=page.actions.end, daemon=True), []
    with page.actions._working():
        ended.start()
        ended.join(0.3)
        assert ended.is_alive()
    ended.join(10)
    assert not ended.is_alive()
    late = threading.Thread(target=lambda: more.append(searched(page)), daemon=True)
    late.start()
    late.join(1)
    assert more == []


def test_work_ends_after_the_page_whatever_ends_it(monkeypatch, tmp_path):
    said = []

    class Blocks:
        def launch(self, **options):
            raise OSError("in use")

        def close(self, verbose):
            said.append("page")

    ending = type("Ending", (), {"__init__": lambda *_: None, "end": lambda _: said.append("work")})
    for name, stub in (("Actions", ending), ("Page", id), ("layout", lambda _: Blocks())):
        monkeypatch.setattr(serve, name, stub)
    monkeypatch.setattr(serve, "api", lambda *_: None)
    monkeypatch.setattr(serve, "_tell_mistakes_in_a_line", lambda: None)
    with pytest.raises(ValueError, match="in use; try --port"):
        serve.serve(None, tmp_path, "127.0.0.1", 1, 1)
    assert said == ["page", "work"]


def test_words_that_the_encoder_cannot_read_are_told(page):
    *_, said = searched(page, text="a red xylophone")
    assert "the best first; the encoder does not know &#x27;xylophone&#x27;" in said
    assert "does not know &#x27;zebra&#x27;" in searched(page, text="a red zebra")[-1]
    assert "does not know" not in searched(page, text="a red circle of zebras")[-1]


def test_a_long_query_is_not_repeated_in_full(page):
    *_, said = searched(page, text="a white " + "xylophone" * 500)
    assert "a white xylo" in said and len(said) < 500


def test_filters_that_let_nothing_through_are_told(page):
    shown, found, *_, said = searched(page, folder="nowhere")
    assert shown == found.hits == [] and "Nothing was found" in said
    assert "or look for *nowhere* if that is a part of a name." in said
    assert searched(page, "a xylophone", folder="nowhere")[-1] == said
    assert "look for" not in searched(page, folder="*nowhere")[-1]
    assert searched(page, folder="tar")[0] == [] != searched(page, folder="*tar*")[0]
    assert [button["interactive"] for button in page.may_go_on(found)] == [False] * 3
    assert len(searched(page, top=20, folder="b.tar", limits=(2.5, 0, 1, 9))[0]) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": ""}, "a sentence, a clip, or both"),
        ({"text": " \n"}, "a sentence, a clip, or both"),
        ({"limits": (5, 4, None, None)}, "after 5 is above before 4; exchange them"),
        ({"limits": (None, None, -1, None)}, "min_duration -1 must be a number of seconds"),
        ({"folder": "a/../b"}, "compared with the names of videos"),
        ({"top": 501}, "top 501 is above 500"),
        ({"again": "mixture"}, "search without re-ranking"),
        ({"clip": "clip"}, "this clip cannot be read: .*; try another file"),
        ({"text": None, "clip": "clip", "again": "mixture"}, "compares moments with a sentence"),
    ],
)
def test_mistakes_are_one_message_and_no_traceback(page, tmp_path, given, message):
    if "clip" in given:
        given["clip"] = str(tmp_path / "clip")
        Path(given["clip"]).write_bytes(b"no film")
    with pytest.raises(gradio.Error, match=message) as told_error:
        told(lambda: searched(page, **given))()
    assert told_error.value.print_exception is False


def test_half_a_download_is_not_what_to_look_for(page, tmp_path):
    data = encode_video(np.full((40, 32, 32, 3), 9, np.uint8), rate=10, container="matroska")
    (tmp_path / "clip").write_bytes(data[:-80])
    with pytest.raises(ValueError, match="this clip cannot be read: cut off"):
        searched(page, text=None, clip=str(tmp_path / "clip"))


def test_favourites_are_kept_once_and_written_to_files(page):
    found = searched(page)[1]
    favourites, *_ = page.keep_one([], found, 1)
    favourites, listed, said, remove, *buttons, beside = page.keep_all(favourites, found)
    assert "Favourites: 3 moments kept" in beside
    assert [hit for _, hit in favourites] == [found.hits[1], found.hits[0], found.hits[2]]
    assert len(listed["choices"]) == 3 and "a.mp4, " in listed["choices"][0]
    assert "3 moments kept" in said and remove["interactive"]
    files = {Path(b["value"]).suffix: Path(b["value"]) for b in buttons if b["interactive"]}
    assert set(files) == {".csv", ".json", ".vtt"}
    instead = "which editors do not open; CSV and JSON have them, too"
    assert f"no EDL: left out 3 of 3 hits: they are in shards, {instead}" in said
    assert "`" not in said and "--" not in said  # a page has no commands
    assert all(page.actions.folder in path.parents for path in files.values())
    (table,) = [list(csv.DictReader(files[".csv"].open()))]
    content = json.loads(files[".json"].read_text())
    assert [float(row["start"]) for row in table] == [row["start"] for row in content]
    assert [row["start"] for row in content] == [hit.start for _, hit in favourites]
    assert {row["text"] for row in content} == {"white"}
    favourites, listed, said, remove, *buttons = page.remove(favourites, [0, 2])
    assert [hit for _, hit in favourites] == [found.hits[0]] and remove["interactive"]
    favourites, listed, said, remove, *buttons = page.remove(favourites, [0])
    assert favourites == [] and not any(b["interactive"] for b in (remove, *buttons))


def test_favourites_of_many_films_are_archives_and_edls(new_index, videos, tmp_path):
    index = new_index("files")
    encode_videos(index, Encoder(), [videos])
    searcher = Searcher(type(index).open(index.folder), Encoder())
    kept_hits = kept([], "white", find(searcher, Query(text="white", top=9)))
    files, said = files_of(kept_hits, tmp_path)
    assert set(files) == {".csv", ".json", ".edl", ".vtt"}
    assert len(said) == 1 and "frame rate" in said[0]  # of 10: no timecode counts so
    assert files[".edl"].read_text().count("* FROM CLIP NAME") == len(kept_hits) > 3
    with ZipFile(files[".vtt"]) as archive:
        chapters = [archive.read(name).decode() for name in archive.namelist()]
    assert len(chapters) == 3 and all(text.startswith("WEBVTT") for text in chapters)


def test_a_page_says_to_remove_what_no_list_can_hold(new_index, videos, tmp_path, monkeypatch):
    index = new_index("files")
    encode_videos(index, Encoder(), [videos])
    searcher = Searcher(type(index).open(index.folder), Encoder())
    monkeypatch.setattr("vmm.search.outputs.edl._DAY_S", 0)
    files, said = files_of(kept([], "white", find(searcher, Query(text="white"))), tmp_path)
    assert ".edl" not in files and said[0].startswith("no EDL: the hits last longer than the 24 h")
    assert said[0].endswith("; remove some")


def test_examples_are_captions_of_the_index(page, new_index, videos):
    assert set(example_queries(page.actions.searcher)) == {"colour 250", "colour 60"}
    index = new_index("files")
    encode_videos(index, Encoder(), [videos])
    assert example_queries(Searcher(type(index).open(index.folder), Encoder())) == []


@pytest.mark.parametrize("name", app_pictures.WIDTHS)
def test_pictures_of_the_documentation_show_the_heading_of_today(name, root):
    with Image.open(root / "assets" / f"{name}.png") as picture:
        stale = f"assets/{name}.png shows an old heading; `make app-pictures` makes it anew"
        assert picture.text.get("heading") == heading(app_pictures.FACTS), stale


def test_the_heading_says_what_is_searched(page):
    said = heading(page.actions.about())
    index = page.actions.searcher.index.folder
    assert f"<h1>Search in {index.parent.name}/{index.name}</h1>" in said
    assert "2 videos, 8.0 seconds, 8 moments of at most 1 s, one every 1 s; model plain (" in said
    assert "8 moments of at most 1 s, cut at shots;" in heading(
        {**page.actions.about(), "shots": True}
    )
    assert "&lt;b&gt;" in heading({**page.actions.about(), "index": "<b>"})


@pytest.fixture
def client(page, tmp_path):
    async def gradio_server(scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body")
        if b"raise" in body:
            raise RuntimeError("a\nb")
        await Response(body)(scope, receive, send)

    folder = tmp_path / "films"
    return TestClient(Guard(gradio_server, api(page.actions, folder), folder, 100_000))


def test_the_api_finds_what_the_page_and_the_command_find(page, client, tmp_path):
    clip = film([250] * 3, 10)
    (tmp_path / "clip.mp4").write_bytes(clip)
    limits = {"folder": "tmp*", "after": 0.5, "min_duration": 1}
    for text, path in (
        ("white", None),
        (None, tmp_path / "clip.mp4"),
        ("x", tmp_path / "clip.mp4"),
    ):
        fields = {"text": text, "top": 5, **limits}
        fields = {name: value for name, value in fields.items() if value is not None}
        files = {} if path is None else {"clip": clip}
        if path is None:
            answer = client.post("/api/search", json=fields)
            assert client.post("/api/search", data=fields).json() == answer.json()
        else:
            answer = client.post("/api/search", data=fields, files=files)
        assert answer.status_code == 200, answer.text
        hits = answer.json()["hits"]
        on_page = page.search(text, path and str(path), 5, "", "tmp*", 0.5, None, 1, None)["hits"]
        assert hits and [h["start"] for h in on_page] == [h["start"] for h in hits]
        if path is None:
            direct = find(page.actions.searcher, Query(**fields))
            shown = page.find(text, None, 5, "", "tmp*", 0.5, None, 1, None)[1].hits
            assert direct == shown and len(direct) == len(hits)
            for hit, row in zip(direct, hits, strict=True):
                where = (str(hit.source), hit.source.member, hit.start, hit.end)
                assert (row["file"], row["member"], row["start"], row["end"]) == where
                assert row["similarity"] == hit.similarity
    assert list((tmp_path / "films").glob("upload-*")) == []


def test_the_api_looks_through_an_upload(client, tmp_path):
    films = {"video": ("../../x.mp4", film([250] * 3, 50))}
    answer = client.post("/api/ask", data={"text": "white", "window": "0.5"}, files=films)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert len(content["hits"]) == 3 and content["problem"] == ""
    assert len(content["curve"]) >= 18 and content["hits"][0]["file"] == ""
    assert {round(c["end"] - c["start"], 6) for c in content["curve"]} == {0.5}
    assert client.get("/api/index").json()["moments"] == 8


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ({"json": {}}, 400, "a sentence, a clip, or both"),
        ({"json": {"text": "a", "colour": 1}}, 400, "no field 'colour'; known are text, top"),
        ({"json": {"text": "a", "clip": "/etc/passwd"}}, 400, "clip must be an uploaded file"),
        ({"data": {"text": "a", "clip": "/etc/passwd"}}, 400, "clip must be an uploaded file"),
        ({"data": {"text": "a", "top": "many"}}, 400, "top 'many' is no whole number"),
        ({"json": {"text": "a", "top": 1e9}}, 400, "whole number"),
        ({"json": {"text": "a", "top": 10**9}}, 400, "above 500"),
        ({"json": {"text": "a", "rerank": 10**9}}, 400, "above 500"),
        ({"json": {"text": "a", "rank_by": []}}, 400, "rank_by"),
        ({"json": [1]}, 400, "must be an object"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "no JSON"),
        ({"content": b"a"}, 400, "send JSON or a form"),
        ({"files": {"clip": b"no film"}}, 400, "cannot be read"),
        ({"files": {"clip": b"0" * 200_000}}, 413, "uploads may have 0.1 MB"),
        ({"json": {"text": "a" * 200_000}}, 413, "uploads may have 0.1 MB"),
        ({"json": {"text": "a"}, "headers": {"sec-fetch-site": "cross-site"}}, 403, "other sites"),
    ],
)
def test_the_api_refuses_with_a_sentence(client, request_, status, message):
    answer = client.post("/api/search", **request_)
    assert answer.status_code == status and message in answer.json()["error"], answer.text


@pytest.mark.parametrize("path", ["/gradio_api/proxy=http://a/", "/monitoring", "/login", "/api"])
def test_addresses_that_nobody_needs_are_not_there(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "http://example.com/a.mp4", "HTTPS://example.com", "a.mp4", "../a.mp4"),
        *("FOLDER/../secret", "FOLDER/link", "", 3, {"path": 1}),
    ],
)
def test_no_request_names_a_file_that_is_no_upload(client, tmp_path, name):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "films" / "link").symlink_to(tmp_path / "secret")
    if isinstance(name, str):
        name = name.replace("FOLDER", str(tmp_path / "films"))
    for content in ({"data": [{"video": {"path": name}}]}, [[{"path": name}]]):
        answer = client.post("/gradio_api/queue/join", json=content)
        assert answer.status_code == 400 and "no uploaded file" in answer.json()["error"]


def test_gradio_gets_all_of_the_rest_and_its_mistakes_are_a_line(client, tmp_path, caplog):
    content = {"data": ["a", {"path": str(tmp_path / "films" / "x" / "a.mp4")}]}
    answer = client.post("/gradio_api/queue/join", json=content)
    assert answer.json() == content and "'self'" in answer.headers["content-security-policy"]
    assert client.post("/gradio_api/queue/join", content=b"{").status_code == 400
    large = json.dumps(["a" * 2**20]).encode()
    assert client.post("/gradio_api/queue/join", content=large).status_code == 413
    assert client.post("/gradio_api/upload", content=b"0" * 200_000).status_code == 413
    answer = client.post("/gradio_api/queue/join", json={"raise": "\n"})
    assert answer.status_code == 500 and "ask again" in answer.json()["error"]
    (record,) = caplog.records
    assert record.message == r"POST /gradio_api/queue/join: RuntimeError: a\x0ab"
    assert record.exc_info is None
