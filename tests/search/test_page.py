"""What the page does, without a browser."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.videos import encode_video
from tests.search.plain import PlainEncoder
from vmm.search.encode import encode_videos
from vmm.search.query import Searcher

gradio = pytest.importorskip("gradio", reason="gradio is not installed")


class Encoder(PlainEncoder):
    """Texts have the vector of a white picture."""

    def encode_text(self, texts):
        return np.full((len(texts), 24), 24**-0.5, np.float32)

    def encode_video(self, clips, **_):
        if isinstance(clips[0], str):
            raise ValueError(f"cannot read {clips[0]}")
        return super().encode_video(clips)


def film(colour):
    frames = np.full((20, 32, 32, 3), colour, np.uint8)
    return encode_video(frames, rate=10)


@pytest.fixture
def page(tmp_path, new_index):
    """Two shards whose members have one name, an absolute one, and show different colours."""
    from vmm.search.app import Page

    name = str(tmp_path / os.fsdecode(b"caf\xe9") / "a.mp4")
    for shard, colour in (("a.tar", (250, 250, 250)), ("b.tar", (60, 60, 60))):
        with tarfile.open(tmp_path / shard, "w") as tar:
            data = film(colour)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    index = new_index(window=2.0, stride=2.0)
    encode_videos(index, Encoder(), [tmp_path / "a.tar", tmp_path / "b.tar"])
    (tmp_path / "films").mkdir()
    return Page(Searcher(type(index).open(index.folder), Encoder()), tmp_path / "films")


def test_members_of_one_name_in_two_shards_are_two_films(page, tmp_path):
    shown, (hits, _), _, about = page.find("white", None, 10, False)
    shards = [hit.source.path.name for hit in hits]
    assert set(shards) == {"a.tar", "b.tar"} and len(hits) == len(shown) == 2
    films = [path for path, _ in shown]
    assert len(set(films)) == len(films) and all(f.startswith(str(tmp_path)) for f in films)
    assert {os.path.dirname(f) for f in films} == {str(tmp_path / "films")}
    contents = {Path(path).read_bytes() for path in films}
    assert len(contents) == 2  # of both colours
    texts = {page.inspect((hits, np.ones(24, np.float32)), n)[1] for n in range(2)}
    assert len(texts) == 2 and about in texts
    # What the browser gets can be sent to it.
    assert all(json.dumps(t, ensure_ascii=False).encode() and r"caf\xe9" in t for t in texts)


@pytest.mark.parametrize(
    ("text", "clip", "message"),
    [
        ("", None, "Type a sentence or drop a clip"),
        (" \n", None, "Type a sentence or drop a clip"),
        ("white", "clip.mp4", "remove one of them"),
        (" ", "clip.mp4", "cannot be read"),
    ],
)
def test_a_sentence_or_a_clip_and_never_both(page, text, clip, message):
    with pytest.raises(gradio.Error, match=message):
        page.find(text, clip, 3, False)
