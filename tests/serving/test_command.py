"""The command as people start it: a process, a socket, signals."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.data import videos
from vmm.cli import main
from vmm.export.encoder import VideoTextEncoder


class Server:
    """A served encoder; ``ask`` sends a request."""

    def __init__(self, folder, *options):
        command = [sys.executable, "-m", "vmm", "serve", str(folder), "--port", "0", *options]
        command += ["--timeout", "600"]  # the machine may be busy
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background jobs ignore Ctrl-C, and hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.greeting = self.process.stdout.readline()
        self.port = int(self.greeting.split("http://127.0.0.1:")[1].split(";")[0])

    def ask(self, method, path, body=None, kind=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request(method, path, body, {"content-type": kind} if kind else {})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        return answer.status, content

    def end(self, number):
        """Send a signal; give the status and what was written to stderr."""
        self.process.send_signal(number)
        said = self.process.communicate(timeout=600)[1]
        return self.process.returncode, said

    def children(self):
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return [int(pid) for pid in listed.stdout.split()]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_serves_and_ends_when_it_is_told_after_what_it_accepted(encoder_folder, number, status):
    server = Server(encoder_folder, "--decoders", "1", "--max-body-mb", "1")
    film = videos.make("h264")
    try:
        code, found = server.ask("POST", "/video", film, "video/mp4")
        assert code == 200
        want = VideoTextEncoder.from_pretrained(encoder_folder, tune=False).encode_video([film])[0]
        np.testing.assert_allclose(found["vector"], want, atol=1e-5)
        assert server.ask("POST", "/video", b"x" * 3_000_000)[0] == 413  # and it is told so
        (decoder,) = server.children()
        answers = []
        asked = [
            threading.Thread(target=lambda: answers.append(server.ask("POST", "/video", film)))
            for _ in range(6)
        ]
        for thread in asked:
            thread.start()
        while server.ask("GET", "/health")[1]["waiting"] + len(answers) < 6:
            time.sleep(0.005)
        ended, said = server.end(number)
        for thread in asked:
            thread.join(60)
    finally:
        server.process.kill()
    assert [code for code, _ in answers] == [200] * 6
    assert ended == status and "Traceback" not in said
    greeting, *rest = said.splitlines()
    assert greeting == f"loading {encoder_folder}; this takes a while"
    assert rest == ["", "vmm: stopped by Ctrl-C"] * (status == 130), "nothing else is said"
    assert ("vmm: stopped by Ctrl-C" in said) == (status == 130)
    assert not alive(decoder)


def test_mistakes_are_told_before_a_model_is_loaded(tmp_path, capsys, encoder_folder):
    assert main(["serve", str(tmp_path / "none"), "--port", "0"]) == 2
    assert "there is no folder" in capsys.readouterr().err
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", str(encoder_folder), "--port", port]) == 2
    error = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1:{port}" in error and "try --port" in error


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "some/where"]) == 2
    assert 'pip install "vmm-video[serve]"' in capsys.readouterr().err
