"""Damaged videos and pictures of all kinds that are read: frames or a ``DecodeError``.

    python -m tests.stress.media --mutants 1000 --out tests/stress/results

Files that FFmpeg and Pillow wrote are changed: bytes, bits, the end cut off, blocks exchanged or
repeated, numbers in headers made extreme. A process of its own decodes each, for clips, in parts as
long films are, and frame by frame as ``make_shards`` does; a crash, a hang or a mistake of ours is
counted and makes the program fail.
"""

import argparse
import contextlib
import datetime
import io
import json
import os
import platform
import sys
import time
import zlib
from collections import Counter
from itertools import islice
from pathlib import Path

import av
import numpy as np
import PIL
from PIL import Image

from tests.data import videos
from vmm.data.decode import DecodeError, decode_parts, decode_video
from vmm.data.faults import SampleError
from vmm.data.isolation import IsolatedDecoder, serve
from vmm.data.pictures import decode_image
from vmm.shards.media_files import open_video, read_image

TIMEOUT_S = 30
PROGRAM = "from tests.stress.media import serve_all; serve_all()"
VIDEOS = (
    "h264", "h264 mov", "h264 mkv", "h264 avi", "h264 fragments", "h264 open groups", "h264 ts",
    "h264 flv", "h264 f4v", "hevc", "hevc ts", "vp8", "vp9", "av1 webm, one group", "mpeg4 avi",
    "mjpeg avi", "mjpeg mkv", "prores", "ffv1", "h263 3gp", "mpeg2 ts, sound", "mpeg1 mpg",
    "mpeg2 vob", "mpeg2 m2v", "mpeg2 mxf", "flv1 flv", "wmv2 asf", "vp8 ogv", "rv20 rm", "dv",
    "gif",
)  # fmt: skip


def pictures():
    """Name -> a picture of each kind."""
    colours = Image.fromarray(videos.moving_picture(1)[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20)
    kinds = {
        "jpeg": (colours, "JPEG", {"exif": exif}),
        "jpeg, progressive, CMYK": (colours.convert("CMYK"), "JPEG", {"progressive": True}),
        "png": (colours, "PNG", {"exif": exif}),
        "png, 16 bits": (wide, "PNG", {}),
        "png, palette, animated": (
            colours.convert("P"), "PNG",
            {"transparency": 3, "save_all": True, "append_images": [colours.convert("P")]},
        ),
        "webp": (colours, "WEBP", {"exif": exif}),
        "webp, animated": (colours, "WEBP", {"save_all": True, "append_images": [colours]}),
        "gif": (colours, "GIF", {}),
        "bmp": (colours, "BMP", {}),
        "tiff": (colours, "TIFF", {"exif": exif, "compression": "tiff_lzw"}),
        "tiff, 16 bits": (wide, "TIFF", {}),
    }  # fmt: skip
    made = {}
    for name, (picture, kind, options) in kinds.items():
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        made[name] = buffer.getvalue()
    return made


def mutate(data, rng):
    """Damage a file in one of eight ways."""
    way, size = rng.integers(8), len(data)
    damaged = bytearray(data)
    if way == 0:
        for place in rng.integers(0, size, rng.integers(1, 60)):
            damaged[place] = rng.integers(256)
    elif way == 1:
        for place in rng.integers(0, size, rng.integers(1, 20)):
            damaged[place] ^= 1 << rng.integers(8)
    elif way == 2:
        del damaged[rng.integers(size) :]
    elif way == 3:  # two blocks exchanged
        length = int(rng.integers(1, max(2, size // 4)))
        one, other = (int(place) for place in rng.integers(0, size - length + 1, 2))
        damaged[one : one + length] = data[other : other + length]
        damaged[other : other + length] = data[one : one + length]
    elif way == 4:  # a block repeated
        one, other = sorted(int(place) for place in rng.integers(0, size, 2))
        damaged[other:other] = data[one:other]
    elif way == 5:  # a block lost
        one = int(rng.integers(size))
        del damaged[one : one + int(rng.integers(1, max(2, size // 8)))]
    elif way == 6:  # the head
        for place in rng.integers(0, min(size, 600), rng.integers(1, 8)):
            damaged[place] = rng.integers(256)
    else:  # numbers of two, four or eight bytes
        for place in rng.integers(0, size, rng.integers(1, 5)):
            length = 2 ** int(rng.integers(1, 4))
            extreme = (b"\0", b"\xff", b"\x7f" + b"\xff" * 7, b"\x80" + b"\0" * 7)[rng.integers(4)]
            damaged[place : place + length] = (extreme * 8)[:length]
    return bytes(damaged)


def serve_all():
    """Be the decoding process: read every file in all the ways there are."""

    def video(data, choose, decoder):
        in_order = lambda times: [[0], [len(times) // 2], [len(times) - 1]]  # noqa: E731
        attempt(lambda: list(decode_parts(data, in_order)))
        attempt(lambda: encoded(data))
        return decode_video(data, choose)

    def image(data):
        attempt(lambda: read_image(io.BytesIO(data)))
        return decode_image(data)

    serve(video, image)


def encoded(data):
    """Read the frames as ``make_shards`` does, from the start and from a moment on."""
    with open_video(io.BytesIO(data)) as file:
        for start in (None, 0.4):
            for _ in islice(file.frames(start), 20):
                pass


def attempt(call):
    """Read a file that may be bad."""
    with contextlib.suppress(SampleError):
        call()


def torment(mutants, seed, say=print):
    """Decode damaged files; return kind -> how many gave frames, and reasons for no frames."""
    decoder = IsolatedDecoder(TIMEOUT_S, PROGRAM)
    outcomes, faults = {}, []
    files = {name: ("video", videos.make(name)) for name in VIDEOS}
    files |= {f"picture: {name}": ("image", data) for name, data in pictures().items()}
    for name, (media, data) in files.items():
        counts = Counter()
        for number in range(mutants):
            damaged = mutate(data, np.random.default_rng([seed, zlib.crc32(name.encode()), number]))
            try:
                if media == "image":
                    decoder.image(damaged)
                else:
                    decoder.video(damaged, lambda t: [0, len(t) // 2, len(t) - 1])
                counts["frames"] += 1
            except DecodeError as error:
                counts[error.reason] += 1
                if error.reason in ("crashed", "hung"):
                    faults.append([name, number, str(error)])
            except Exception as error:  # noqa: BLE001  # counted, with its trace
                counts["mistake"] += 1
                faults.append([name, number, str(error)])
        outcomes[name] = dict(counts)
        say(json.dumps({name: outcomes[name]}), flush=True)
    decoder.close()
    return outcomes, faults


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=100, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    begun = time.time()
    outcomes, faults = torment(options.mutants, options.seed)
    result = {
        "date": datetime.date.today().isoformat(),
        "mutants of each kind": options.mutants,
        "seed": options.seed,
        "seconds": round(time.time() - begun),
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(), "av": av.__version__, "pillow": PIL.__version__
        },
        "kinds": len(outcomes),
        "crashes, hangs and mistakes": faults,
        "outcomes": outcomes,
    }  # fmt: skip
    print(json.dumps({key: value for key, value in result.items() if key != "outcomes"}))
    if options.out is not None:
        path = options.out / f"media_{result['date']}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
