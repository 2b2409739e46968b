"""The pictures of ``vmm app`` in ``assets/``, which the documentation shows; `make app-pictures`.

    python -m tests.app_pictures runs/demo/index

The index is one of the demo's test clips, as `make demo` says at its end, but with
`--window 1 --stride 0.5`: clips of two seconds have a curve then. Each picture has in it
the heading that the page had for ``FACTS``, so that a test can tell when they are old.
"""

from __future__ import annotations

import argparse
import base64
import io
import math
import shutil
import signal
import tarfile
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.browser import Browser
from tests.data.videos import encode_video
from tests.search.served import Served
from vmm.search.app.words import heading
from vmm.text_output import say

ROOT = Path(__file__).parent.parent
CLIPS = ROOT / "data/demo/test-000000.tar"
WIDTHS = {"app_search": 1280, "app_phone": 390, "app_ask": 1280}
FACTS = {
    "index": "runs/index", "encoder": "runs/encoder", "fingerprint": "0" * 12, "videos": 2,
    "hours": 2.0, "moments": 3, "window": 8.0, "stride": 4.0, "shots": False,
}  # fmt: skip
_BELOW = 24
"""Pixels below the last curve."""
_FOUND = "a large striped blue ring grows on a striped background"
_ASKED = "a small plain red circle moves up on a striped background"
_FILM = ("green cross", "yellow bar", "red circle", "blue ring")
"""What is seen in the video that is asked, one after the other."""
_HIDE = """
const box = document.querySelector('#about textarea');
box.value = box.value.replace(/file: .*[/]([^/]+[/][^/]+)/, 'file: /films/$1');
document.activeElement.blur();
"""  # no folder of the machine where they are made


def demo_film(clips: Path = CLIPS) -> bytes:
    """Put some of the demo's clips one after the other."""
    with tarfile.open(clips) as tar:
        content = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    said = {name: data.decode() for name, data in content.items() if name.endswith(".txt")}
    frames = []
    for what in _FILM:
        name = next(name for name, caption in said.items() if f"{what} moves" in caption)
        with av.open(io.BytesIO(content[name.replace(".txt", ".mp4")])) as video:
            rate = video.streams.video[0].average_rate
            frames += [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    return encode_video(np.array(frames), rate=rate)


def take(address: str, chromium: str, film: Path, out: Path) -> None:
    """Use the page, and write what it looks like.

    Args:
        address: Of the page.
        chromium: The browser.
        film: A video to ask.
        out: Folder for the pictures.
    """
    for name, width in WIDTHS.items():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            browser = Browser(chromium, profile, width, 900)
            try:
                browser.call("Emulation.setScrollbarsHidden", hidden=True)
                browser.call("Page.navigate", url=address)
                (_ask if name == "app_ask" else _search)(browser, film)
                _write(browser, width, out / f"{name}.png")
            finally:
                browser.close()


def _search(browser: Browser, film: Path) -> None:
    browser.type_into("#text :is(input, textarea)", _FOUND)
    browser.click("#search")
    _wait(browser, "films", "curve")
    browser.wait_for("document.querySelector('#about textarea').value")
    browser.evaluate(_HIDE)


def _ask(browser: Browser, film: Path) -> None:
    browser.wait_for("document.querySelectorAll('button[role=tab]').length == 3")
    browser.evaluate("document.querySelectorAll('button[role=tab]')[1].click()")
    browser.wait_for("!!document.querySelector('#own input[type=file]')")
    browser.choose_file("#own input[type=file]", film)
    browser.wait_for("!!document.querySelector('#own video')")
    browser.type_into("#question :is(input, textarea)", _ASKED)
    browser.click("#ask")
    _wait(browser, "best", "relevance")
    browser.evaluate("document.activeElement.blur()")


def _wait(browser: Browser, films: str, curve: str) -> None:
    found = f"[...document.querySelectorAll('#{films} video')]"
    browser.wait_for(f"{found}.length > 2 && {found}.every(v => v.readyState == 4)")
    browser.wait_for(f"!!document.querySelector('#{curve} :is(svg, canvas)')")


def _write(browser: Browser, width: int, path: Path) -> None:
    curves = "[...document.querySelectorAll('#curve, #relevance')]"
    bottom = f"scrollY + Math.max(...{curves}.map(e => e.getBoundingClientRect().bottom))"
    size = {"width": width, "deviceScaleFactor": 1, "mobile": False}
    for _ in range(2):  # films beyond a window are black; in a higher one the page is another
        time.sleep(1)  # the curve grows into its place
        height = math.ceil(browser.evaluate(bottom)) + _BELOW
        browser.call("Emulation.setDeviceMetricsOverride", height=height, **size)
    time.sleep(1)
    picture = browser.call("Page.captureScreenshot")
    made = PngInfo()
    made.add_text("heading", heading(FACTS))
    shown = base64.b64decode(picture["data"])
    with Image.open(io.BytesIO(shown)) as whole:
        colours = whole.convert("RGB").quantize(256)  # a third of the size
        colours.save(path, pnginfo=made, optimize=True)


def main() -> None:
    """Serve an index, and write its pictures."""
    parser = argparse.ArgumentParser(prog="python -m tests.app_pictures", description=__doc__)
    parser.add_argument("index", type=Path, help="of the demo's test clips")
    parser.add_argument("--out", type=Path, default=ROOT / "assets")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        parser.error("there is no chromium; install it")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "index").symlink_to(options.index.resolve())
        (folder / "film.mp4").write_bytes(demo_film())
        served = Served(folder, ROOT)
        try:
            take(served.address, chromium, folder / "film.mp4", options.out)
        finally:
            served.end(signal.SIGTERM)
    say(f"wrote {', '.join(f'{name}.png' for name in WIDTHS)} to {options.out}")


if __name__ == "__main__":
    main()
