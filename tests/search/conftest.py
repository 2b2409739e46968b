import pytest

from tests.data.videos import encode_video, moving_picture
from tests.export.runs import write_run
from tests.search.plain import PlainEncoder
from vmm.export.command import main
from vmm.search.index import Index, Settings


@pytest.fixture
def encoder():
    return PlainEncoder()


@pytest.fixture
def new_index(tmp_path, encoder):
    """Make an index, or open it again, with windows of 1 second every half."""

    def make(name="index", **settings):
        made_by = {"fingerprint": encoder.fingerprint, "encoder": "plain", "embedding_dim": 24}
        settings = {**made_by, "window": 1.0, "stride": 0.5, **settings}
        return Index.create(tmp_path / name, Settings(**settings))

    return make


@pytest.fixture
def videos(tmp_path):
    """A folder of three videos of 3.2, 0.4 and 2 seconds, in two levels."""
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    for number, (name, frames) in enumerate((("a.mp4", 32), ("b.mkv", 4), ("deep/c.AVI", 20))):
        container = {"mp4": "mp4", "mkv": "matroska", "avi": "avi"}[name[-3:].lower()]
        data = encode_video(moving_picture(frames, seed=number), rate=10, container=container)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    """A real encoder, tiny and not trained; read only."""
    folder = tmp_path_factory.mktemp("exported")
    write_run(folder / "run", seed=0)
    assert main([str(folder / "run"), str(folder / "encoder"), "--license", "mit"]) == 0
    return folder / "encoder"


@pytest.fixture(scope="session")
def another_encoder_folder(tmp_path_factory):
    """The same with other weights."""
    folder = tmp_path_factory.mktemp("another")
    write_run(folder / "run", seed=1)
    assert main([str(folder / "run"), str(folder / "encoder"), "--license", "mit"]) == 0
    return folder / "encoder"
