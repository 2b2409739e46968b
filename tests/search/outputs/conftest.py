from fractions import Fraction

import av
import numpy as np
import pytest

from vmm.search.query import Hit
from vmm.search.results import Result
from vmm.search.sources import Source


@pytest.fixture
def film(tmp_path):
    """Make a film of one second, or more, whose frames count up."""

    def make(name, rate=25, timecode=None, seconds=1.0, codec="libx264"):
        path = tmp_path / "films" / name
        path.parent.mkdir(exist_ok=True)
        rate = Fraction(rate)
        kind = {"mkv": "matroska"}.get(name.rpartition(".")[2], name.rpartition(".")[2])
        with open(path, "wb") as file, av.open(file, "w", format=kind) as output:
            stream = output.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            if timecode:
                stream.metadata["timecode"] = timecode
                output.metadata["timecode"] = timecode
            for number in range(round(seconds * rate)):
                pixels = np.full((48, 64, 3), number * 5 % 256, np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(stream.encode(None))
        return path

    return make


@pytest.fixture
def found():
    """Make what a query found, of (path or (shard, member), start, end)."""

    def make(*hits, name="1", text="a red circle", **scores):
        return Result(name, text, "", [
            Hit(Source(*where) if isinstance(where, tuple) else Source(where), start, end,
                0.5 - rank / 100, **scores)
            for rank, (where, start, end) in enumerate(hits)
        ])  # fmt: skip

    return make
