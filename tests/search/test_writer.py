from pathlib import Path

import numpy as np
import torch

from vmm.search.parts import Record
from vmm.search.sources import Source
from vmm.search.writer import MomentWriter


def test_vectors_that_are_taken_over_come_after_those_of_clips_that_wait(new_index, encoder):
    index = new_index()
    writer = MomentWriter(index, encoder, batch_size=8, flush_seconds=1e9)
    clips = torch.rand(3, 2, 3, 8, 8)
    known = np.eye(2, 24, dtype=np.float32)
    spans = np.array([[0.0, 1.0], [0.5, 1.5]])
    writer.begin(Record("/v/new", ""))
    writer.add((0.0, 1.0), clips[0])
    writer.finish(1.0)
    writer.begin(Record("/v/known", ""))
    writer.take_over(spans, known)
    writer.finish(1.5)
    writer.begin(Record("/v/next", ""))
    for clip in clips[1:]:
        writer.add((0.0, 1.0), clip)
    writer.finish(1.0)
    writer.flush()
    index.reload()
    found = {s.path.name: index.moments_of(s) for s in index.videos}
    wanted = encoder.encode_video(clips)
    np.testing.assert_allclose(found["new"][1], wanted[:1], rtol=1e-6)
    np.testing.assert_allclose(found["known"][1], known, rtol=1e-6)
    np.testing.assert_allclose(found["next"][1], wanted[1:], rtol=1e-6)
    assert found["known"][0].tolist() == spans.tolist()
    assert index.videos[Source(Path("/v/known"))].record.seconds == 1.5
