import json

import pytest

from tests.evaluation import contents
from tests.evaluation.retrieval.subjects import MSRVTT, N, clips_of, scores_of
from vmm.evaluation.retrieval.subject import Subject


@pytest.fixture
def clean():
    """A test set of which nothing can be said."""
    # As in the real list, the ids lie anywhere in the test part.
    ids = [f"video{7010 + 2 * i}" for i in range(N)]
    clips = clips_of(ids)
    return Subject(clips, MSRVTT, similarity=scores_of(clips))


@pytest.fixture
def result(tmp_path):
    """A result file with captions that want to be markup, and a clip beside it."""
    found = [
        {"key": "s/1", "score": 3.25, "rank": 1, "right": True, "clip": "clips/000.mp4"},
        {"key": "s/2", "score": 1.5, "rank": 2, "right": False, "clip": "../secret.txt"},
        {"key": "s/3", "score": 1.0, "rank": 3, "right": False, "clip": None},
    ]
    caption = "a <script>alert(1)</script> & {{ 7 * 7 }}"
    content = contents.retrieval()
    content["examples"] = [{"caption": caption, "rank": 1, "results": found}]
    content["best"] = [{"caption": "the clearest", "rank": 1, "results": found[:1]}]
    last = {"key": "s/4", "score": -1.0, "rank": 77, "right": True, "clip": None}
    content["worst"] = [{"caption": "the worst", "rank": 77, "results": [*found[1:], last]}]
    content["findings"] = [{"code": "tied-scores", "message": "2 queries <b>", "effect": "R@1 1"}]
    folder = tmp_path / "result"
    (folder / "clips").mkdir(parents=True)
    (folder / "clips" / "000.mp4").write_bytes(b"moving picture")
    (tmp_path / "secret.txt").write_text("secret")
    path = folder / "retrieval.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def run(tmp_path):
    """A run directory with what a training logged."""
    return contents.write_log(tmp_path / "run")
