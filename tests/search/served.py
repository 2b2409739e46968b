"""``vmm app`` in a process of its own, and damaged films for it."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter

import numpy as np

from tests.data import videos
from tests.stress.media import VIDEOS, mutate


def film(order, size=64):
    """Seconds of plain colours, 10 frames each."""
    colours = {"r": (220, 30, 30), "g": (30, 200, 30), "b": (30, 30, 220)}
    frames = np.array([np.full((size, size, 3), colours[c]) for c in order for _ in range(10)])
    return videos.encode_video(frames.astype(np.uint8), rate=10)


def make_index(folder, encoder, root):
    """Encode three films into an index, as users do."""
    (folder / "videos").mkdir()
    for name, order in (("one.mp4", "rgb"), ("two.mp4", "ggbr"), ("three.mp4", "b")):
        (folder / "videos" / name).write_bytes(film(order))
    (folder / "secret.txt").write_text("do not tell")
    options = ["--encoder", str(encoder), "--window", "1", "--stride", "0.5"]
    command = ["encode", str(folder / "videos"), "-o", str(folder / "index"), *options]
    subprocess.run([sys.executable, "-m", "vmm", *command], check=True, cwd=root)


class Served:
    """The page of an index.

    Args:
        folder: Has the index; gets temporary files and what is said.
        root: Of the project.
    """

    def __init__(self, folder, root):
        self.folder, self.temporary, self._said = folder, folder / "tmp", folder / "stderr.txt"
        self.temporary.mkdir(exist_ok=True)
        port = 17860 + hash(str(folder)) % 1000
        command = [sys.executable, "-m", "vmm", "app", str(folder / "index"), "--port", str(port)]
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [*command, "--max-upload-mb", "1"],
                cwd=root,
                text=True,
                stderr=said,
                stdout=subprocess.PIPE,
                env={
                    **os.environ,
                    "TMPDIR": str(self.temporary),
                    "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch"),  # torch's own, and kept
                },
            )
        self.address = f"http://127.0.0.1:{port}"
        assert self.address in self.process.stdout.readline(), self.said

    @property
    def said(self):
        """What is on standard error."""
        return self._said.read_text()

    def end(self, number):
        """End it by a signal; return its status."""
        self.process.send_signal(number)
        return self.process.wait(60)


def fetch(url, data=None, headers=None):
    """Return (status, body); redirections are not followed."""
    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def search(address, **fields):
    """Ask the API with JSON; return (status, answer)."""
    headers = {"Content-Type": "application/json"}
    status, body = fetch(f"{address}/api/search", json.dumps(fields).encode(), headers)
    return status, json.loads(body)


def upload(address, route, name, data, text="a red circle"):
    """Send a form with a film and a sentence to the API; return (status, answer)."""
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="a.mp4"\r\n\r\n'
    said = f'\r\n--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n{text}\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    body = head.encode() + data + said.encode()
    status, answer = fetch(f"{address}/api/{route}", body, headers)
    return status, json.loads(answer)


def hostile(number, seed=0):
    """Give damaged films of as many kinds as there are."""
    rng = np.random.default_rng(seed)
    kinds = VIDEOS[:: max(1, len(VIDEOS) // number)]
    whole = [videos.make(kind) for kind in kinds]
    return [mutate(whole[i % len(whole)], rng) for i in range(number)]


def torment(served, files):
    """Upload damaged films in every way; what is found afterwards is what was found before.

    Returns:
        How often each (route, status) came.
    """
    before = search(served.address, text="a red circle", top=20)
    assert before[0] == 200 and before[1]["hits"]
    statuses = Counter()
    for data in files:
        for route, name in (("search", "clip"), ("ask", "video")):
            status, answer = upload(served.address, route, name, data)
            assert status == 200 or (status == 400 and answer["error"]), answer
            statuses[route, status] += 1
    assert search(served.address, text="a red circle", top=20) == before
    assert served.process.poll() is None and "Traceback" not in served.said
    assert list(served.temporary.rglob("upload-*")) == []
    return statuses
