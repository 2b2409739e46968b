"""Damaged shards, for all that read them.

    python -m tests.stress.shards --mutants 1000 --out tests/stress/results

Shards of every tar dialect are written, with long names, links, sparse and repeated members, and
damaged at random: bytes and bits, cut, blocks lost, repeated and exchanged, fields of headers
(with a checksum that is right again), pax records. Each is read by its index, as a stream, and by
``inspect_shards``. Whatever is not read must be accounted for: a reader that raises anything but
the project's own errors, takes longer than half a minute, or makes the memory grow has failed.
"""

import argparse
import datetime
import io
import json
import logging
import os
import platform
import random
import resource
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tests.data.videos import encode_video, moving_picture
from vmm.data.faults import BadSamples, SampleError
from vmm.data.index_files import INDEX_SUFFIX
from vmm.data.resampled import read_stream
from vmm.data.shards import ShardSet
from vmm.shards.shard_statistics import inspect_shard, report

BLOCK = 512
LIMIT_S = 30
LIMIT_MIB = 300
TYPES = b"0123456789gxLKSDNVMA\0\xff"
FIELDS = {"name": (0, 100), "mode": (100, 108), "size": (124, 136), "mtime": (136, 148),
          "type": (156, 157), "link": (157, 257), "magic": (257, 265), "prefix": (345, 500),
          "sparse": (386, 483), "more sparse": (482, 495)}  # fmt: skip
NUMBERS = (
    0,
    1,
    511,
    512,
    513,
    2**20,
    2**30,
    2**31,
    2**33 - 1,
    2**62,
    2**95 - 1,
    -1,
    -512,
    -(2**62),
)
RECORDS = (
    b"size=-1", b"size=99999999999999999999", b"size=1e9", b"size=", b"path=", b"path=../../x.mp4",
    b"path=\xff\xfe.mp4", b"path=" + b"a" * 3000 + b".mp4", b"linkpath=/etc/passwd", b"mtime=nan",
    b"hdrcharset=BINARY", b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.map=0,1,2",
    b"GNU.sparse.size=99999999999", b"GNU.sparse.realsize=99999999999", b"GNU.sparse.name=y.mp4",
    b"GNU.sparse.numblocks=999999999", b"GNU.sparse.offset=-5", b"GNU.sparse.numbytes=-5",
)  # fmt: skip


def members(picture):
    """Names and contents: samples as people have them, and what else a tar may hold."""
    keys = ("000000000", "clip_1.5s", "ä 猫", "deep/" * 40 + "long", "/abs/olute", "../up")
    for number, key in enumerate(keys):
        yield f"{key}.mp4", picture
        yield f"{key}.txt", f"a caption {number}".encode()
        yield f"{key}.json", json.dumps({"caption": "ignored", "number": number}).encode()
    yield "._000000000.mp4", b"\0\5\x16\7Mac"
    yield "000000000.mp4", b"again"
    yield "1.txt", b"a failed download"
    yield "1.json", b'{"status": "failed"}'


def write_shard(dialect, picture):
    """Return the bytes of a shard of a tar dialect, with a link, a folder and a sparse member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=dialect) as tar:
        for name, content in members(picture):
            if dialect == tarfile.USTAR_FORMAT and len(name) > 90:
                continue
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE):
            header = tarfile.TarInfo(f"{kind.decode()}.mp4")
            header.type, header.linkname = kind, "000000000.mp4"
            tar.addfile(header)
    return buffer.getvalue()


def headers(data):
    """Offsets of the headers."""
    return [
        at for at in range(0, len(data) - BLOCK, BLOCK) if data[at + 257 : at + 262] == b"ustar"
    ]


def repair(data, at):
    """Give a header a checksum that is right."""
    header = bytearray(data[at : at + BLOCK])
    header[148:156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(header)


def with_field(data, rng):
    """Change a field of a header."""
    at = rng.choice(headers(data) or [0])
    name = rng.choice(list(FIELDS))
    first, end = FIELDS[name]
    if name == "type":
        data[at + first] = rng.choice(TYPES)
    elif rng.random() < 0.6 and end - first >= 12:
        data[at + first : at + first + 12] = number(rng.choice(NUMBERS))
    else:
        data[at + first : at + end] = rng.randbytes(end - first)
    if len(data) >= at + BLOCK and rng.random() < 0.9:
        repair(data, at)


def number(value):
    """A number as a header holds it: octal where it can be, else in base 256."""
    if 0 <= value < 8**11:
        return b"%011o\0" % value
    return (b"\x80" if value >= 0 else b"\xff") + (value % 2**88).to_bytes(11, "big")


def with_record(data, rng):
    """Put a pax header with odd records before a member, or many."""
    text = b"".join(
        b"%d %s\n" % (rng.choice((len(r) + 4, len(r) + 4, 0, 10**9)), r)
        for r in rng.sample(RECORDS, rng.randint(1, 4))
    )
    header = tarfile.TarInfo("PaxHeader")
    header.type = rng.choice((b"x", b"g"))
    header.size = len(text)
    block = header.tobuf(tarfile.USTAR_FORMAT) + text.ljust(-(-len(text) // BLOCK) * BLOCK, b"\0")
    at = rng.choice(headers(data) or [0])
    data[at:at] = block * rng.choice((1, 1, 1, 2, 1000))


def with_blocks(data, rng):
    """Lose, repeat, exchange or overwrite some blocks."""
    blocks = max(1, len(data) // BLOCK)
    first = rng.randrange(blocks) * BLOCK
    some = data[first : first + BLOCK * rng.randint(1, 8)]
    kind = rng.choice(("lose", "repeat", "exchange", "zeros", "noise"))
    if kind == "lose":
        del data[first : first + len(some)]
    elif kind == "repeat":
        at = rng.randrange(blocks) * BLOCK
        data[at:at] = some
    elif kind == "exchange":
        at = rng.randrange(blocks) * BLOCK
        data[first : first + len(some)] = data[at : at + len(some)]
        data[at : at + len(some)] = some
    else:
        data[first : first + len(some)] = bytes(len(some)) if kind == "zeros" else rng.randbytes(
            len(some)
        )  # fmt: skip


def with_bits(data, rng):
    """Change single bits, most of them in headers."""
    places = headers(data)
    for _ in range(rng.randint(1, 20)):
        if data:
            near = rng.choice(places) + rng.randrange(BLOCK) if places and rng.random() < 0.7 else 0
            data[min(near or rng.randrange(len(data)), len(data) - 1)] ^= 1 << rng.randrange(8)


def cut(data, rng):
    """Cut the end, or the beginning, or add noise."""
    if rng.random() < 0.7:
        del data[rng.randrange(len(data) + 1) :]
    elif rng.random() < 0.5:
        del data[: rng.randrange(BLOCK * 4)]
    else:
        data += rng.randbytes(rng.randrange(2000))


CHANGES = (with_field, with_field, with_record, with_blocks, with_bits, cut)


def mutate(data, rng):
    """Damage a shard in one to four ways."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        rng.choice(CHANGES)(damaged, rng)
    return bytes(damaged)


def by_index(path):
    """Read all that the index gives; return the number of samples and of records."""
    try:
        samples = ShardSet(str(path), "video")
    except ValueError as error:
        if type(error) is not ValueError or "no video with a caption" not in str(error):
            raise
        return 0, 1
    found = 0
    for position in range(len(samples)):
        try:
            raw = samples.read(*samples.locate(position))
            assert raw.captions and raw.key
            found += 1
        except SampleError:
            pass
    return found, len(list(samples.left_out()))


def by_stream(path):
    """Read all that the stream gives; return the number of samples and of records."""
    record = path.with_suffix(".jsonl")
    record.unlink(missing_ok=True)
    found = sum(1 for _ in read_stream(str(path), "video", BadSamples(str(record))))
    lines = record.read_bytes().splitlines() if record.is_file() else []
    return found, len([json.loads(line) for line in lines])


def by_inspection(path):
    """Inspect; return the number of usable samples and of problems."""
    content = inspect_shard(str(path), [0, 3])
    json.dumps(asdict(report([content])))
    return content.usable, len(content.problems) + sum(content.ignored.values()) + bool(
        content.damage
    )


READERS = {"index": by_index, "stream": by_stream, "inspection": by_inspection}


def late(*_):
    raise TimeoutError(f"more than {LIMIT_S} s")


def resident():
    """Most memory that this process has had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(mutants, seed, folder, keep=None):
    """Damage and read; return what came out and what failed."""
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGALRM, late)
    picture = encode_video(moving_picture(6, 16, 16), preset="ultrafast")
    dialects = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    whole = [write_shard(dialect, picture) for dialect in dialects]
    path, failures, outcomes = folder / "a.tar", [], Counter()
    for reader in READERS.values():  # libraries are loaded before the memory is measured
        path.write_bytes(whole[1])
        reader(path)
    before = resident()
    for mutant in range(mutants):
        rng = random.Random(f"{seed} {mutant}")
        path.write_bytes(mutate(rng.choice(whole), rng))
        Path(str(path) + INDEX_SUFFIX).unlink(missing_ok=True)
        for name, reader in READERS.items():
            signal.alarm(LIMIT_S)
            try:
                found, told = reader(path)
                outcomes[f"{name}: {'all' if not told else 'some' if found else 'none'}"] += 1
            except Exception:  # noqa: BLE001  # any is a failure to be shown
                failures.append(f"mutant {mutant}, {name}:\n{traceback.format_exc()}")
                if keep:
                    (keep / f"{seed}-{mutant}.tar").write_bytes(path.read_bytes())
            finally:
                signal.alarm(0)
    return {
        "mutants": mutants,
        "seed": seed,
        "failures": failures,
        "grown MiB": round(resident() - before, 1),
        "samples read of a mutant": dict(sorted(outcomes.items())),
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the mutants that failed")
    options = parser.parse_args(arguments)
    begun = time.time()
    with tempfile.TemporaryDirectory(prefix="vmm-stress-") as name:
        result = run(options.mutants, options.seed, Path(name), options.keep)
    result |= {
        "date": datetime.date.today().isoformat(),
        "seconds": round(time.time() - begun),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=1))
    if options.out is not None:
        path = options.out / f"shards_{result['date']}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
    return int(bool(result["failures"]) or result["grown MiB"] > LIMIT_MIB)


if __name__ == "__main__":
    sys.exit(main())
