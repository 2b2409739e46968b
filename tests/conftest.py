import logging
import math
import os
import shutil
import time
from pathlib import Path

# Tests run beside each other, and threads that wait for theirs by spinning take the others' cores:
# three times as long. Processes that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

from vmm.text_output import visible

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may ask the network for a model

if not torch.cuda.is_available() and "TRITON_INTERPRET" not in os.environ:
    # Triton decides when it is imported, which Lightning does, whether its own functions can be
    # interpreted; tests/ops/conftest.py switches the interpreter on for single tests.
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        import triton  # noqa: F401
    except ImportError:
        pass
    finally:
        del os.environ["TRITON_INTERPRET"]

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def golden():
    """Load a recorded file: golden("c_vision") -> {name: tensor}."""
    from safetensors.torch import load_file

    return lambda name: load_file(GOLDEN / f"{name}.safetensors")


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture
def relative_error():
    """Largest difference, as a share of the largest recorded value."""

    def error(actual, recorded):
        scale = recorded.abs().max().clamp(min=1e-12)
        return ((actual.double() - recorded.double()).abs().max() / scale).item()

    return error


@pytest.fixture(autouse=True)
def _alike_everywhere():
    """Leave nothing of the tests before: draws, messages into a stream that is closed, threads."""
    torch.manual_seed(0)
    logging.getLogger("vmm").handlers = []
    threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != threads:  # the benchmarks take one
        torch.set_num_threads(threads)


_LONGEST = ("test_commands.py", "test_strategies.py", "test_averaging.py", "test_interrupts.py")
_MINUTES = float(os.environ.get("TEST_MINUTES", "inf"))
"""CI has an end, and machines differ by three times: no slow test begins after so many minutes, and
no other one after 1.5 times as many."""
_STARTED = time.monotonic()


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, or one of two processes waits for them at the end.

    If time may run out, files with slow tests come last.
    """
    if math.isinf(_MINUTES):
        items.sort(key=lambda item: item.path.name not in _LONGEST)
    else:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (item.path in slow, item.path.name not in _LONGEST))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    slow = item.get_closest_marker("slow") is not None
    if time.monotonic() - _STARTED > 60 * _MINUTES * (1 if slow else 1.5):
        kind = "this one is slow" if slow else "this machine is slow"
        pytest.skip(f"the {_MINUTES:g} minutes of TEST_MINUTES are over, and {kind}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """What was logged may name files that are no UTF-8, which no test process can send."""
    report = yield
    report.sections = [(name, visible(text, lines=True)) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def chromium():
    """The program of a Chromium that shows pages; CI must have one, so that pages are watched."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None and os.environ.get("CI"):
        pytest.fail("CI shows every page in a browser, but there is no Chromium; see .ci/run")
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    return path


@pytest.fixture
def look_at(chromium, tmp_path_factory):
    """Show a written page in a browser of some widths; what a visitor would miss is an error."""
    from tests.browser import Browser

    def look(path, widths=(1280, 390)):
        for width in widths:
            browser = Browser(chromium, tmp_path_factory.mktemp("profile"), width, 900)
            try:
                browser.show(path)
                assert browser.evaluate("innerWidth") == width
                assert browser.evaluate("document.body.innerText.trim().length") > 100
                broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
                assert browser.evaluate(broken) == 0, f"{path} has pictures that are not shown"
                page = browser.evaluate("document.documentElement.scrollWidth")
                window = browser.evaluate("document.documentElement.clientWidth")
                assert page <= window, f"{path} is {page} pixels wide in a window of {window}"
                assert browser.errors == []
                hidden = "t.scrollWidth > t.parentElement.clientWidth"
                shadow = "getComputedStyle(t.parentElement).backgroundAttachment.includes('local')"
                bare = f"t => {hidden} && !{shadow}"
                cut = browser.evaluate(
                    f"[...document.querySelectorAll('table')].filter({bare}).length"
                )
                assert cut == 0, f"{path} has tables that do not show that they go on"
                outside = [
                    url for url in browser.requests if not url.startswith(("file:", "data:"))
                ]
                assert outside == []
            finally:
                browser.close()

    return look


@pytest.fixture
def ray_cluster():
    """A Ray cluster of this machine alone, whose tasks import what the tests import."""
    ray = pytest.importorskip("ray")
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {"env_vars": {"PYTHONPATH": paths, "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}}
    options = {"num_cpus": 2, "include_dashboard": False, "runtime_env": environment}
    for left in (2, 1, 0):
        try:
            ray.init(log_to_driver=False, **options)
            break
        except Exception as error:  # Ray waits 30 s, which a busy machine may need and more
            if not left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
    yield
    ray.shutdown()


class DemoShards:
    """A few real shards of the demo's kind, and the options that point a recipe at them."""

    def __init__(self, folder):
        self.folder = folder

    def options(self, images=True):
        named = {"train_videos": "train", "val_videos": "val", "test_videos": "test"}
        if images:
            named["train_images"] = "images"
        return [
            f"--data.init_args.{key}={self.folder}/{value}-*.tar" for key, value in named.items()
        ] + ["--data.init_args.make_demo=false"]


@pytest.fixture(scope="session")
def demo_shards(tmp_path_factory):
    from vmm.shards.demo.synthesize import main

    folder = tmp_path_factory.mktemp("shards") / "demo"
    sizes = ["--train", "48", "--val", "16", "--test", "16", "--images", "16", "--workers", "1"]
    assert main(["--out", str(folder), *sizes]) in (None, 0)
    return DemoShards(folder)
