import importlib.util
import json
import re
import signal
import subprocess
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest
from PIL import Image

from tests import app_pictures
from tests.browser import Browser
from tests.search.served import Served, fetch, film, hostile, make_index, search, torment
from vmm.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gradio") is None, reason="gradio is not installed"
    ),
]

TEXT = "#text :is(input, textarea)"
LABELS = "[...document.querySelectorAll('#films .caption-label')]"


@pytest.fixture(scope="module")
def served(tmp_path_factory, encoder_folder, root):
    """The page of a small index, as ``vmm app`` serves it."""
    folder = tmp_path_factory.mktemp("app")
    make_index(folder, encoder_folder, root)
    served = Served(folder, root)
    yield served
    if served.process.poll() is None:
        served.end(signal.SIGTERM)


@pytest.fixture
def page(served):
    """Its address and folder."""
    return served.address, served.folder


@pytest.fixture
def browser(chromium, tmp_path):
    browser = Browser(chromium, tmp_path / "profile", 1200, 1300)
    yield browser
    browser.close()


def test_moments_are_found_play_and_can_be_inspected(page, browser):
    address, _ = page
    browser.call("Page.navigate", url=address)
    browser.type_into(TEXT, "a red circle")
    browser.click("#search")
    films = "[...document.querySelectorAll('#films video')]"
    browser.wait_for(f"{films}.length >= 4 && {films}.every(v => v.readyState == 4)")
    assert browser.evaluate(f"{films}.every(v => v.videoWidth == 64 && v.duration <= 1.1)")
    about = "document.querySelector('#about textarea').value"
    first = browser.wait_for(about)
    about_it = r"file: \S+/videos/\w+\.mp4\nmoment: .* of .*\nsimilarity: [-.\d]+\nmost similar .*"
    assert re.fullmatch(about_it, first)
    browser.evaluate(f"{films}[2].closest('button').click()")
    browser.wait_for(f"{about} != {json.dumps(first)}")
    # The film that was chosen is shown large, and plays.
    browser.wait_for(f"{films}.some(v => v.clientWidth > 200 && v.controls)")
    browser.wait_for("document.querySelectorAll('#curve svg, #curve canvas').length > 0")
    asked = {urllib.parse.urlsplit(url).netloc for url in browser.requests if "://" in url}
    assert asked == {urllib.parse.urlsplit(address).netloc}


def test_nothing_stands_empty(page, browser):
    """Neither before the first search, nor where a video of one moment has no curve."""
    there = "!!document.querySelector('%s')?.offsetHeight"

    def seen(name):
        return browser.evaluate(there % name)

    browser.call("Page.navigate", url=page[0])
    browser.type_into(TEXT, "a red circle")
    assert not any(map(seen, ("#films", "#keep", "#about", "#curve")))
    browser.evaluate("document.querySelectorAll('button[role=tab]')[1].click()")
    browser.wait_for(there % "#ask")
    assert not seen("#best") and not seen("#relevance")
    browser.evaluate("document.querySelectorAll('button[role=tab]')[0].click()")
    browser.click("#search")
    browser.wait_for(f"{LABELS}.length >= 4 && {there % '#keep'} && {there % '#about'}")
    for name in ("three.mp4", "one.mp4"):
        films = "[...document.querySelectorAll('#films button')]"
        browser.evaluate(f"{films}.find(b => b.ariaLabel?.includes('{name}')).click()")
        browser.wait_for(f"document.querySelector('#about textarea').value.includes('{name}')")
        if name == "three.mp4":
            browser.wait_for(f"!({there % '#curve'})")
            browser.evaluate("document.querySelector('#films [aria-label=Close]').click()")
            browser.wait_for("!document.querySelector('#films .preview')")
        else:
            browser.wait_for("!!document.querySelector('#curve :is(svg, canvas)')")


@pytest.mark.parametrize("width", [1280, 390])
def test_a_film_that_is_looked_at_is_large_and_nothing_covers_it(page, chromium, tmp_path, width):
    browser = Browser(chromium, tmp_path / "profile", width, 900)
    try:
        browser.call("Page.navigate", url=page[0])
        browser.type_into(TEXT, "a red circle")
        browser.click("#search")
        browser.wait_for("document.querySelectorAll('#films .thumbnail-lg video').length >= 4")

        def edge(what, side):
            found = f"document.querySelector('#films {what}').getBoundingClientRect()"
            return browser.evaluate(f"{found}.{side}")

        said = "[...document.querySelectorAll('#curve span')]"
        lines = f"{said}.filter(e => e.textContent.trim().startsWith('Similarity'))"
        heights = browser.wait_for(f"{lines}.map(e => e.clientHeight || e.offsetHeight).join()")
        assert max(map(int, heights.split(","))) < 30, (
            "a second line pushes the seconds out of sight"
        )
        assert edge("label", "bottom") <= edge(".thumbnail-lg", "top")
        browser.evaluate("document.querySelector('#films .thumbnail-lg').click()")
        browser.wait_for("!!document.querySelector('#films .preview video')")
        assert edge(".preview video", "height") > 250
        assert edge(".preview video", "bottom") <= edge(".preview .caption", "top") + 1
        assert edge(".preview .caption", "bottom") <= edge(".preview .thumbnails button", "top")
    finally:
        browser.close()


@pytest.mark.parametrize(("width", "columns"), [(1280, 6), (375, 2), (320, 2)])
def test_films_stand_side_by_side_on_a_phone_too(page, chromium, tmp_path, width, columns):
    browser = Browser(chromium, tmp_path / "profile", width, 900)
    try:
        browser.call("Page.navigate", url=page[0])
        browser.type_into(TEXT, "a red circle")
        browser.click("#search")
        films = "[...document.querySelectorAll('#films .thumbnail-lg')]"
        browser.wait_for(f"{films}.filter(b => b.querySelector('video')).length >= 4")
        tops = browser.evaluate(f"{films}.map(b => b.getBoundingClientRect().top)")
        assert tops.count(tops[0]) >= min(columns, len(tops))
        assert browser.evaluate(f"{films}[0].offsetWidth") >= 120
        left = browser.evaluate("document.querySelector('#search').getBoundingClientRect().left")
        assert left <= 8 or width > 480, "a phone has no room for margins"
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.close()


def test_pictures_of_the_documentation_can_be_made(page, chromium, tmp_path):
    (tmp_path / "own.mp4").write_bytes(film("rgbrgb"))
    app_pictures.take(page[0], chromium, tmp_path / "own.mp4", tmp_path)
    for name, width in app_pictures.WIDTHS.items():
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width == width and picture.height > 700
            assert len(picture.getcolors()) > 100


def test_a_video_of_ones_own_is_asked(page, browser, tmp_path):
    address, _ = page
    browser.call("Page.navigate", url=address)
    browser.wait_for("document.querySelectorAll('button[role=tab]').length == 3")
    browser.evaluate("document.querySelectorAll('button[role=tab]')[1].click()")
    (tmp_path / "own.mp4").write_bytes(film("rgbrgb"))
    browser.wait_for("!!document.querySelector('#own input[type=file]')")
    browser.choose_file("#own input[type=file]", tmp_path / "own.mp4")
    browser.wait_for("!!document.querySelector('#own video')")
    browser.type_into("#question :is(input, textarea)", "a red circle")
    browser.click("#ask")
    films = "[...document.querySelectorAll('#best video')]"
    browser.wait_for(f"{films}.length == 3 && {films}.every(v => v.readyState == 4)")


def test_no_file_but_the_films_is_served(page):
    address, folder = page
    routes = ("/gradio_api/file=", "/file=", "/file/", "/gradio_api/file/", "/static/", "/assets/")
    routes += ("/gradio_api/custom_component/", "/", "/svelte/", "/theme/")
    targets = [folder / "secret.txt", folder / "videos/one.mp4", folder / "index/index.json"]
    spellings = ["/etc/passwd", "//etc/passwd", "../../../../../../etc/passwd"]
    spellings += ["..%2f..%2f..%2f..%2f..%2fetc/passwd", "%2e%2e/%2e%2e/%2e%2e/etc/passwd"]
    spellings += ["....//....//etc/passwd", "/proc/self/environ", "pyproject.toml", "~/.bashrc"]
    spellings += ["file:///etc/passwd", "/tmp/../etc/passwd", "..\\..\\etc\\passwd"]
    spellings += [str(t) for t in targets] + [f"/tmp/../{t}" for t in targets]
    for route in routes:
        for spelling in spellings:
            status, body = fetch(address + route + urllib.parse.quote(spelling, safe="/%:"))
            told = any(
                s in body for s in (b"root:", b"do not tell", b"vmm_index", b"PATH=", b"ftyp")
            )
            assert status in (400, 403, 404, 405) and not told, (route, spelling, status)


def test_the_server_fetches_no_address(page):
    address, _ = page
    for route in ("/gradio_api/file=", "/file=", "/gradio_api/proxy=", "/proxy="):
        for url in (f"{address}/config", "http://example.com/", "HTTPS://example.com/"):
            assert fetch(address + route + url)[0] == 404


def test_a_file_of_the_server_is_no_upload(page):
    """The page's functions take a path only if the browser uploaded the file."""
    address, folder = page
    config = json.loads(fetch(f"{address}/config")[1])
    session, refused = "session", 0
    for number, function in enumerate(config["dependencies"]):
        values = []
        for component in function["inputs"]:
            kind = next(c["type"] for c in config["components"] if c["id"] == component)
            path = str(folder / "videos/one.mp4")
            video = {"path": path, "meta": {"_type": "gradio.FileData"}}
            values.append({"video": video, "textbox": "a red circle"}.get(kind, 3))
        body = {"data": values, "fn_index": number, "session_hash": session}
        headers = {"Content-Type": "application/json"}
        status, answer = fetch(
            f"{address}/gradio_api/queue/join", json.dumps(body).encode(), headers
        )
        if status == 200:
            status, answer = fetch(f"{address}/gradio_api/queue/data?session_hash={session}")
        if video in values:
            assert status == 400 and b"no uploaded file" in answer
            refused += 1
    assert refused == 6  # search and ask, of the page and of its API


def places(hits):
    scored = [hit["similarity"] if hit["score"] is None else hit["score"] for hit in hits]
    return [(h["file"], h["start"], round(s, 4)) for h, s in zip(hits, scored, strict=True)]


@pytest.mark.parametrize("rerank", [0, 30])
def test_page_api_client_and_command_find_the_same_in_the_same_order(page, browser, capsys, rerank):
    from gradio_client import Client

    address, folder = page
    status, body = search(address, text="a red circle", top=8, rerank=rerank)
    assert status == 200 and len(body["hits"]) >= 5
    command = ["search", str(folder / "index"), "a red circle", "--top", "8", "--json"]
    assert main([*command, "--rerank", str(rerank)]) == 0
    assert places(json.loads(capsys.readouterr().out)) == places(body["hits"])
    again = "mixture" if rerank else ""
    client = Client(address, verbose=False)
    found = client.predict(text="a red circle", top=8, again=again, api_name="/search")
    assert places(found["hits"]) == places(body["hits"])

    browser.call("Page.navigate", url=address)
    browser.type_into(TEXT, "a red circle")
    if rerank:
        browser.click("button.label-wrap")
        radio = "document.querySelector('input[type=radio][value=mixture]')"
        browser.wait_for(f"!!{radio}")
        # It is drawn before it hears.
        chosen = f"{radio}.closest('label').classList.contains('selected')"
        browser.wait_for(f"{chosen} || ({radio}.click(), false)")
    browser.click("#search")
    browser.wait_for(f"{LABELS}.length >= {len(body['hits'])}")
    shown = browser.evaluate(f"{LABELS}.slice(0, 8).map(c => c.innerText)")
    for number, (caption, hit) in enumerate(zip(shown, body["hits"], strict=True), 1):
        name, when, scores = caption.split("\n")
        assert name == f"{number}. {hit['file'].rpartition('/')[2]}"
        assert when.startswith(f"00:{hit['start']:04.1f}")
        plain = f"similarity {hit['similarity']:.3f}"
        ordered = f"score {hit['score']:.2f} of {plain}" if rerank else plain
        assert scores.startswith(ordered)


def test_curl_uploads_a_clip(page, tmp_path):
    address, _ = page
    (tmp_path / "clip.mp4").write_bytes(film("b"))
    curl = ["curl", "--silent", "--show-error", "-F", "top=2", "-F", f"clip=@{tmp_path}/clip.mp4"]
    answer = subprocess.run([*curl, f"{address}/api/search"], capture_output=True, check=True)
    hits = json.loads(answer.stdout)["hits"]
    assert [hit["similarity"] for hit in hits] == pytest.approx([1, 1], abs=1e-3)
    assert {Path(hit["file"]).name for hit in hits} <= {"one.mp4", "three.mp4", "two.mp4"}


def press(browser, key, code, text=""):
    for kind in ("keyDown", "keyUp"):
        typed = {"text": text} if text and kind == "keyDown" else {}
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed
        )


def test_everything_has_a_name_and_is_reached_by_the_keyboard(page, browser):
    address, _ = page
    browser.call("Page.navigate", url=address)
    browser.type_into(TEXT, "a red circle")
    press(browser, "Enter", 13, "\r")
    browser.wait_for("document.querySelectorAll('#films video').length >= 4")
    browser.wait_for("!document.querySelector('#keep').disabled")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    asked = {"button", "textbox", "slider", "spinbutton", "radio", "checkbox", "tab", "link"}
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", "").strip())
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in asked
    ]
    assert len(named) > 10 and [role for role, name in named if not name] == []
    names = {name for _, name in named}
    assert any(name.startswith("1. ") and "similarity" in name for name in names)
    assert {"What to look for", "Search", "Ask a video", "Favourites", "More moments"} <= names
    reached = set()
    for _ in range(60):
        press(browser, "Tab", 9)
        where = "(e => e.closest('[id]')?.id)(document.activeElement)"
        reached.add(browser.evaluate(where))
    assert {"search", "films", "keep", "keep-all"} <= reached  # there are no more


def test_a_mistake_stays_until_something_is_done(page, browser):
    address, _ = page
    browser.call("Page.navigate", url=address)
    phone = {"width": 390, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **phone)
    browser.click("#search")
    alert = "document.querySelector('#said [role=alert]')"
    assert "say what to look for" in browser.wait_for(f"{alert}?.innerText")
    browser.wait_for(f"{alert}.getBoundingClientRect().bottom <= innerHeight")
    assert browser.evaluate("document.querySelector('.toast-body')") is None  # goes away by itself
    browser.type_into(TEXT, "a red circle")
    browser.click("#search")
    browser.wait_for("document.querySelectorAll('#films video').length >= 4")
    assert browser.evaluate(alert) is None


def test_on_a_phone_all_columns_are_seen(page, browser):
    address, _ = page
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **phone)
    browser.call("Page.navigate", url=address)
    browser.type_into(TEXT, "a red circle")
    browser.click("#search")
    films = "[...document.querySelectorAll('#films video')]"
    browser.wait_for(f"{films}.length >= 5")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    rectangle = "(r => [r.left, r.right])(v.getBoundingClientRect())"
    edges = browser.evaluate(f"{films}.slice(0, 8).map(v => {rectangle})")
    assert all(left >= 0 and right <= 390 and right - left > 120 for left, right in edges)
    assert len({round(left) for left, _ in edges}) == 2
    cut = "c.scrollWidth > c.clientWidth + 1 || c.scrollHeight > c.clientHeight + 1"
    assert browser.evaluate(f"{LABELS}.filter(c => {cut}).length") == 0


def test_hostile_uploads_change_nothing(served):
    """``python -m tests.stress.uploads`` does this with 200."""
    statuses = torment(served, hostile(6))
    assert statuses.total() == 12 and {status for _, status in statuses} == {200, 400}


def test_large_uploads_are_refused(page):
    address, _ = page
    border = b"--x\r\nContent-Disposition: form-data; name=files; filename=a.mp4\r\n\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for megabytes, expected in ((0.5, 200), (1.5, 413)):
        data = border + b"0" * int(megabytes * 1e6) + b"\r\n--x--\r\n"
        assert fetch(f"{address}/gradio_api/upload", data, headers)[0] == expected


def test_it_listens_on_this_machine_only(page):
    port = int(page[0].rpartition(":")[2])
    with open("/proc/net/tcp") as lines:
        listening = [line.split()[1] for line in lines if line.split()[3] == "0A"]
    addresses = [a.partition(":")[0] for a in listening if int(a.partition(":")[2], 16) == port]
    assert addresses == ["0100007F"]


def test_a_signal_in_the_middle_of_work_is_no_crash(served):
    """Torch aborts a process that ends while a thread computes."""
    with ThreadPoolExecutor() as pool:
        asked = {"text": "a red circle", "rerank": 30}
        waiting = [pool.submit(search_or_none, served.address, asked) for _ in range(6)]
        time.sleep(1)
        assert served.end(signal.SIGTERM) == 0
        assert len([future.result() for future in waiting]) == 6
    assert list(served.temporary.iterdir()) == [] and "terminate" not in served.said


def search_or_none(address, fields):
    with suppress(OSError, HTTPException):
        return search(address, **fields)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_leave_nothing_behind(served, browser, root, number, status):
    """Also while a browser is looking, and has been shown films; nothing said was a traceback."""
    if served.process.poll() is not None:
        served = Served(served.folder, root)
    browser.call("Page.navigate", url=served.address)
    browser.type_into(TEXT, "a red circle")
    browser.click("#search")
    browser.wait_for("document.querySelectorAll('#films video').length >= 4")
    assert any(served.temporary.iterdir())
    children = set(processes_of(served.process.pid))
    assert served.end(number) == status
    assert list(served.temporary.iterdir()) == [] and "Traceback" not in served.said
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def processes_of(process):
    """Return the processes that one has started and that are there."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
