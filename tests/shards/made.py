"""Shards that tests make, and what is in them."""

import json
import tarfile

from vmm.shards.making import MakeOptions, make_shards
from vmm.shards.samples import Layout


def make(items, media, out, layout=Layout(), **more):  # noqa: B008
    return make_shards(items, MakeOptions(media, out, layout, **more))


def samples(folder):
    """{key: {extension: content}} of all shards of a folder."""
    found = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, extension = member.name.rpartition(".")
                found.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return found


def metadata(folder):
    return [json.loads(sample["json"]) for sample in samples(folder).values()]


def shard_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}
