import threading
import time

import pytest

from vmm.serving.batching import Batcher


class Recorder:
    """Computes twice a number, and notes its batches; the first waits to be let go."""

    def __init__(self):
        self.batches, self.go = [], threading.Event()

    def __call__(self, items):
        self.batches.append(list(items))
        self.go.wait(5)
        if any(item is None for item in items):
            raise ValueError("an item is None")
        return [2 * item for item in items]


@pytest.fixture
def recorder():
    return Recorder()


def test_what_comes_together_is_computed_together(recorder):
    batcher = Batcher({"a": recorder, "b": recorder}, max_batch=3, max_wait=0.0)
    first = batcher.submit("a", 1)
    while not recorder.batches:  # the thread is busy from here on
        time.sleep(0.001)
    others = [batcher.submit("a", n) for n in (2, 3)] + [batcher.submit("b", 4)]
    gone = batcher.submit("a", 5)
    gone.cancel()
    last = batcher.submit("a", 6)
    recorder.go.set()
    assert [f.result(5) for f in (first, *others, last)] == [2, 4, 6, 8, 12]
    assert recorder.batches == [[1], [2, 3], [4], [6]]
    assert (batcher.batches, batcher.items) == (4, 5)
    batcher.close()


def test_the_first_waits_for_others(recorder):
    recorder.go.set()
    batcher = Batcher({"a": recorder}, max_batch=2, max_wait=5.0)
    futures = [batcher.submit("a", n) for n in (1, 2)]
    assert [f.result(1) for f in futures] == [2, 4]
    assert recorder.batches == [[1, 2]]
    batcher.close()


def test_an_item_that_fails_takes_no_other_along(recorder):
    recorder.go.set()
    batcher = Batcher({"a": recorder}, max_batch=3, max_wait=1.0)
    good, bad, also = (batcher.submit("a", item) for item in (1, None, 3))
    assert (good.result(5), also.result(5)) == (2, 6)
    with pytest.raises(ValueError, match="an item is None"):
        bad.result(5)
    batcher.close()


def test_what_was_asked_for_is_done_before_it_ends(recorder):
    batcher = Batcher({"a": recorder}, max_batch=2, max_wait=0.0)
    futures = [batcher.submit("a", n) for n in range(5)]
    threading.Timer(0.1, recorder.go.set).start()
    batcher.close()
    assert [f.result(0) for f in futures] == [0, 2, 4, 6, 8]
    assert "vmm-model" not in [thread.name for thread in threading.enumerate()]
