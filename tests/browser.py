"""Headless Chromium, driven through its DevTools pipe: messages are JSON, each ended by a zero."""

import base64
import itertools
import json
import os
import subprocess
import time

_OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--mute-audio", "--remote-debugging-pipe"),
]


class Browser:
    """A browser with one page.

    Args:
        program: Of Chromium.
        profile: An empty folder.
        width: Of the window, pixels.
        height: Of the window, pixels.
    """

    def __init__(self, program, profile, width=1200, height=1000):
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4.
        command = [program, *_OPTIONS, f"--user-data-dir={profile}"]
        command += [f"--window-size={width},{height}", "about:blank"]
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._numbers, self._rest, self.session = itertools.count(1), b"", None
        self.requests = []
        """Addresses that the page asked for."""
        self.errors = []
        """What its scripts threw or said on the console as errors."""
        target = next(
            t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"
        )
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM"):
            self.call(f"{domain}.enable")
        # A window of its own accord is at least 500 pixels wide.
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def call(self, method, **params):
        """Send a command and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"]["text"])
            said = answer["params"] if answer.get("method") == "Runtime.consoleAPICalled" else {}
            if said.get("type") == "error":
                self.errors.append(said["args"])
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, expression):
        """Return the value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression, seconds=30):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"{expression} did not become true"
            time.sleep(0.1)
        return value

    def show(self, page):
        """Go to a page that is a file, and wait until it is there."""
        self.call("Page.navigate", url=page.absolute().as_uri())
        self.wait_for("document.readyState == 'complete'")

    def type_into(self, selector, text):
        """Focus an element and type."""
        self.wait_for(f"!!document.querySelector({selector!r})")
        self.evaluate(f"document.querySelector({selector!r}).focus()")
        self.call("Input.insertText", text=text)

    def click(self, selector):
        """Click on an element."""
        self.wait_for(f"!!document.querySelector({selector!r})")
        self.evaluate(f"document.querySelector({selector!r}).click()")

    def choose_file(self, selector, path):
        """Give a file to an input."""
        node = self.call("DOM.querySelector", nodeId=self._root(), selector=selector)
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node["nodeId"])

    def screenshot(self, path):
        """Write what is seen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self):
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _root(self):
        return self.call("DOM.getDocument")["root"]["nodeId"]

    def _read(self):
        while b"\0" not in self._rest:
            chunk = os.read(self._in, 65536)
            assert chunk, "the browser ended"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)
