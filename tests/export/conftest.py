import av
import numpy as np
import pytest

from tests.export.runs import write_run
from vmm.export.command import main


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run directory and its model."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    return folder, write_run(folder, seed=0)


@pytest.fixture(scope="session")
def another_run(tmp_path_factory):
    """A run of the same architecture with other weights."""
    folder = tmp_path_factory.mktemp("another") / "run"
    write_run(folder, seed=1)
    return folder


@pytest.fixture(scope="session")
def encoder_folder(trained, tmp_path_factory):
    """The encoder folder of ``trained``; read only."""
    folder = tmp_path_factory.mktemp("exported") / "encoder"
    assert main([str(trained[0]), str(folder), "--license", "mit"]) == 0
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Three videos of 12, 7 and 20 frames, 10 per second, of different sizes: their paths."""
    folder = tmp_path_factory.mktemp("clips")
    paths = []
    for number, (length, height, width) in enumerate(((12, 48, 64), (7, 64, 36), (20, 32, 32))):
        paths.append(folder / f"{number}.mp4")
        with av.open(str(paths[-1]), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for i in range(length):
                pixels = np.full((height, width, 3), 40 * number, np.uint8)
                pixels[: 2 * i + 2, :, i % 3] = 250 - 10 * i
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return paths
