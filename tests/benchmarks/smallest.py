"""Run the smallest form of every benchmark; the tests look at what it leaves in a folder.

A program of its own: benchmarks fork, keep freed memory and set PyTorch's threads.
"""

import json
import sys
from pathlib import Path

import torch

from benchmarks import (
    block,
    collection,
    common,
    compiling,
    conv,
    decode,
    encoder,
    estimate,
    export,
    loading,
    long_video,
    opening,
    rerank,
    scan,
    step,
)
from vmm.models.bert import BertArchitecture

OUT = Path(sys.argv[1])
common.TURN_S = 0.0
scan.SHORT = scan.Sizes(("Ti",), (9, 18), (1, 2), (9, 18), 1, 1.0)
block.SHORT = block.Sizes(("Ti", "M"), (17,), 1, 1.0)
conv.SHORT = conv.Sizes(("Ti",), (9, 18), 2, ("float32", "bfloat16"), 1, 5.0)
encoder.SHORT = encoder.Sizes(("tiny", "middle"), (1, 2), (1, 0), 32, 1, 5.0)
decode.SHORT = decode.Sizes((90,), (8,), 2, 1, 4)
long_video.SHORT = long_video.Sizes((8, 20), 8, 2, 32, (10, 20), 36)
rerank.SHORT = rerank.Sizes((1,), (9,), BertArchitecture(20, 24, 2, 2, 48), 1, 1, 5.0)
export.SHORT = export.Sizes(("tiny",), (1,), 1, 1, 32, 1)
collection.SHORT = collection.Sizes(2000, 1000, 20, 16, 1)
loading.SHORT = loading.LONG._replace(
    cluster=loading.Cluster(4, 2, 4),
    stage1=loading.Corpus("video", 403, 20),
    stage2={"a": loading.Corpus("video", 101, 20), "b": loading.Corpus("image", 67, 20)},
)
opening.SHORT = opening.Sizes((2, 3), 4, 2, 5, 2)
step.SHORT = step.Sizes(
    tuple(step.Case("small", stage, 16, 1, 2, 32, 2, (32, 3, 2), (32, 2)) for stage in (1, 2)), 1
)
compiling.SHORT = compiling.Sizes((compiling.Case("small", 16, 2, 1, 2, 32),), 1, "eager")

if __name__ == "__main__":  # and not again in the processes that a benchmark spawns
    for module in (
        scan,
        block,
        compiling,
        conv,
        decode,
        encoder,
        estimate,
        export,
        loading,
        long_video,
        opening,
        rerank,
        collection,
        step,
    ):
        sys.argv = [module.__name__, "--short", "--output", str(OUT)]
        module.main()

    # What extra_memory must find: 32 MiB that are needed for a while beside 16 that stay.
    many = 2**20
    junk = [torch.ones(64 * 1024) for _ in range(256)]  # 64 MiB of free heap must not hide them
    del junk
    extra = common.extra_memory(lambda: [torch.ones(12 * many)[: 4 * many].clone()])
    none = common.extra_memory(lambda: [torch.ones(8 * many)])
    peak = common.peak_memory(lambda: torch.ones(64 * many))
    OUT.joinpath("memory.json").write_text(json.dumps([extra, none, peak]))
