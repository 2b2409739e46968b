import importlib.util
import json
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest

from tests.browser import Browser
from tests.data.videos import encode_video

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gradio") is None, reason="gradio is not installed"
    ),
]


def film(order, size=64):
    """Seconds of plain colours, 10 frames each."""
    colours = {"r": (220, 30, 30), "g": (30, 200, 30), "b": (30, 30, 220)}
    frames = np.array([np.full((size, size, 3), colours[c]) for c in order for _ in range(10)])
    return encode_video(frames.astype(np.uint8), rate=10)


@pytest.fixture(scope="module")
def page(tmp_path_factory, encoder_folder, root):
    """The page of a small index, as ``vmm app`` serves it: address and indexed folder."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "videos").mkdir()
    for name, order in (("one.mp4", "rgb"), ("two.mp4", "ggbr"), ("three.mp4", "b")):
        (folder / "videos" / name).write_bytes(film(order))
    (folder / "secret.txt").write_text("do not tell")
    run = [sys.executable, "-m", "vmm"]
    options = ["--encoder", str(encoder_folder), "--window", "1", "--stride", "0.5"]
    encode = [*run, "encode", str(folder / "videos"), "-o", str(folder / "index"), *options]
    subprocess.run(encode, check=True, cwd=root)
    port = 17860 + hash(str(folder)) % 1000
    command = [*run, "app", str(folder / "index"), "--port", str(port), "--max-upload-mb", "1"]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        yield f"http://127.0.0.1:{port}", folder
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def browser(chromium, tmp_path):
    browser = Browser(chromium, tmp_path / "profile", 1200, 1300)
    yield browser
    browser.close()


def fetch(url, data=None, headers=None):
    """Return (status, body); redirections are not followed."""
    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_moments_are_found_play_and_can_be_inspected(page, browser):
    address, _ = page
    browser.call("Page.navigate", url=address)
    browser.type_into("#text textarea", "a red circle")
    browser.click("#search")
    films = "[...document.querySelectorAll('#films video')]"
    browser.wait_for(f"{films}.length >= 4 && {films}.every(v => v.readyState == 4)")
    assert browser.evaluate(f"{films}.every(v => v.videoWidth == 64 && v.duration <= 1.1)")
    about = "document.querySelector('#about textarea').value"
    first = browser.wait_for(about)
    assert re.fullmatch(r"file: \S+/videos/\w+\.mp4\nmoment: .*\nsimilarity: [-.\d]+", first)
    browser.evaluate(f"{films}[2].closest('button').click()")
    browser.wait_for(f"{about} != {json.dumps(first)}")
    # The film that was chosen is shown large, and plays.
    browser.wait_for(f"{films}.some(v => v.clientWidth > 200 && v.controls)")
    browser.wait_for("document.querySelectorAll('#curve svg, #curve canvas').length > 0")
    asked = {urllib.parse.urlsplit(url).netloc for url in browser.requests if "://" in url}
    assert asked == {urllib.parse.urlsplit(address).netloc}


def test_a_video_of_ones_own_is_asked(page, browser, tmp_path):
    address, _ = page
    browser.call("Page.navigate", url=address)
    browser.wait_for("document.querySelectorAll('button[role=tab]').length == 2")
    browser.evaluate("document.querySelectorAll('button[role=tab]')[1].click()")
    (tmp_path / "own.mp4").write_bytes(film("rgbrgb"))
    browser.wait_for("!!document.querySelector('#own input[type=file]')")
    browser.choose_file("#own input[type=file]", tmp_path / "own.mp4")
    browser.wait_for("!!document.querySelector('#own video')")
    browser.type_into("#question textarea", "a red circle")
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
    session = "session"
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
        assert b'"success": true' not in answer and b'"success":true' not in answer


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
