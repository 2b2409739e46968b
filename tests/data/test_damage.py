"""Forty and more kinds of damage in one training run: it finishes, and all of it is accounted for.

Every picture shows the number that its caption says, so that a caption with another sample's media
is seen.
"""

import gzip
import io
import json
import pickle
import tarfile
import wave

import av
import lightning as L
import numpy as np
import pytest
import torch

from vmm.data.datamodules import WebVideoData
from vmm.data.transforms import IMAGENET_MEAN, IMAGENET_STD


def sound_only(container="mp4"):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def wav():
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(bytes(800))
    return buffer.getvalue()


def broken_media(tools, good):
    """Name -> (extension, content) of media that cannot be decoded."""
    mdat, moov = good.index(b"mdat"), good.index(b"moov")
    noise = np.random.default_rng(0).bytes(3000)
    clip = tools.moving_picture(4, 16, 16)
    matroska = tools.encode_video(clip, container="matroska", preset="ultrafast")
    avi = tools.encode_video(clip, codec="mjpeg", container="avi", pix_fmt="yuvj420p")
    return {
        "empty": ("mp4", b""),
        "noise": ("mp4", noise),
        "zeros": ("mp4", bytes(4000)),
        "cut early": ("mp4", good[:200]),
        "cut in the middle": ("mp4", good[: len(good) // 2]),
        "first bytes only": ("mp4", good[:32]),
        "beginning lost": ("mp4", good[40:]),
        "no index": ("mp4", good[: moov - 4]),
        "index overwritten": ("mp4", good[: moov + 8] + bytes(len(good) - moov - 8)),
        "pictures overwritten": (
            "mp4",
            good[: mdat + 4] + bytes(moov - mdat - 8) + good[moov - 4 :],
        ),
        "a photo": ("mp4", tools.coded_jpeg(1)),
        "an error page": ("mp4", b"<html><body>404 Not Found</body></html>" * 20),
        "a playlist": ("mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
        "a list of files": ("mp4", b"ffconcat version 1.0\nfile /etc/passwd\n"),
        "a session description": ("mp4", b"v=0\nm=video 5004 RTP/AVP 96\n"),
        "a program": ("mp4", pickle.dumps({"a": [1, 2]})),
        "compressed": ("mp4", gzip.compress(good)),
        "an archive": ("mp4", tools.write_tar_bytes([("a.mp4", good)])),
        "sound only": ("mp4", sound_only()),
        "wav": ("avi", wav()),
        "huge gif": ("gif", b"GIF89a" + b"\xff\xff\xff\xff" + b"\xf7\x00\x00" + bytes(900)),
        "cut gif": ("gif", b"GIF89a\x10\x00\x10\x00"),
        "cut matroska": ("mkv", matroska[:120]),
        "noise matroska": ("webm", matroska[:40] + noise),
        "cut avi": ("avi", avi[:200]),
    }


def unusable_members(tools, good):
    """Name -> ((suffix, content or header fields) of its members, reason in the record)."""
    text = b"damage"
    return {
        "failed download": ([(".txt", text), (".json", b'{"status": "failed"}')], "no video"),
        "sound beside text": ([(".m4a", b"x"), (".txt", text)], "no video"),
        "image in a video shard": ([(".jpg", tools.coded_jpeg(1)), (".txt", text)], "no video"),
        "no caption": ([(".mp4", good)], "no caption"),
        "blank caption": ([(".mp4", good), (".txt", b" \n\t")], "no caption"),
        "broken metadata": ([(".mp4", good), (".json", b'{"caption": "x')], "no caption"),
        "null caption": ([(".mp4", good), (".json", b'{"caption": null}')], "no caption"),
        "deep metadata": ([(".mp4", good), (".json", b"[" * 90_000)], "no caption"),
        "endless caption": ([(".mp4", good), (".txt", b"a" * 70_000)], "no caption"),
        "caption in Latin-1": ([(".mp4", good), (".txt", b"caf\xe9")], "bad caption"),
        "unmarked UTF-16": ([(".mp4", good), (".txt", "a dog".encode("utf-16-le"))], "bad caption"),
        "symbolic link": ([(".mp4", tarfile.SYMTYPE), (".txt", text)], "no video"),
        "hard link": ([(".mp4", tarfile.LNKTYPE), (".txt", text)], "no video"),
        "device": ([(".mp4", tarfile.CHRTYPE), (".txt", text)], "no video"),
        "named pipe": ([(".mp4", tarfile.FIFOTYPE), (".txt", text)], "no video"),
        "sparse": ([(".mp4", tarfile.GNUTYPE_SPARSE), (".txt", text)], "no video"),
    }


def member_header(name, kind):
    header = tarfile.TarInfo(name)
    header.type = kind
    header.linkname = "/etc/passwd"
    return header


def header_at(data, name, change):
    """Change a member's header and repair its checksum."""
    start = data.index(name.encode() + b"\0")
    header = bytearray(data[start : start + 512])
    change(header)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:start] + bytes(header) + data[start + 512 :]


def with_size(value):
    def change(header):
        field = b"\x80" + value.to_bytes(11, "big") if value >= 0 else b"\xff" * 12
        header[124:136] = field

    return change


def broken_shards():
    """Name -> (damage to a shard with samples x0 and x1, how many of them stay whole)."""

    def at(data, name, change):
        return header_at(data, name, change)

    return {
        "cut in a payload": (lambda d, x: d[: d.index(f"{x}1.mp4".encode()) + 700], 1),
        "cut in a header": (lambda d, x: d[: d.index(f"{x}1.mp4".encode()) + 100], 1),
        "cut between members": (lambda d, x: d[: d.index(f"{x}1.mp4".encode())], 1),
        "flipped byte": (lambda d, x: d.replace(f"{x}1.mp4".encode(), f"{x}1.mp5".encode()), 1),
        "block of zeros": (lambda d, x: zeros_at(d, f"{x}1.mp4"), 1),
        "size of 2^62": (lambda d, x: at(d, f"{x}1.mp4", with_size(2**62)), 1),
        "negative size": (lambda d, x: at(d, f"{x}1.mp4", with_size(-1)), 1),
        "no bytes": (lambda d, x: b"", 0),
        "html": (lambda d, x: b"<html>" * 2000, 0),
        "compressed shard": (lambda d, x: gzip.compress(d), 0),
        "beginning of a shard lost": (lambda d, x: d[100:], 0),
    }  # fmt: skip


def zeros_at(data, name):
    start = data.index(name.encode())
    return data[:start] + bytes(512) + data[start + 512 :]


class Damaged:
    """Shards with 64 good samples and all kinds of damage, and what must be said of each."""

    def __init__(self, folder, tools):
        self.folder, self.tools = folder, tools
        self.good, self.bad = {}, {}
        self.clips = {code: tools.coded_mp4(code, 3) for code in range(64)}
        self.codes = iter(range(64))
        self.write_samples("broken", broken_media(tools, self.clips[0]))
        self.write_members("members", unusable_members(tools, self.clips[1]))
        self.write_shards(broken_shards())
        self.write_names("names")
        self.write_good("good")
        self.bad["missing shard"] = (str(folder / "gone.tar"), "", "missing shard")

    def sample(self, shard, key):
        """The members of a good sample, which is noted."""
        code = next(self.codes)
        self.good[f"{shard}/{key}"] = code
        return [(f"{key}.mp4", self.clips[code]), (f"{key}.txt", f"video {code}".encode())]

    def write_samples(self, shard, media):
        members = []
        for number, (kind, (extension, content)) in enumerate(media.items()):
            key = f"{number:04d}"
            members += [(f"{key}.{extension}", content), (f"{key}.txt", f"bad {kind}".encode())]
            members += self.sample(shard, f"good{number:04d}") if number % 2 else []
            self.bad[kind] = (shard, key, None)
        self.tools.write_tar(self.folder / f"{shard}.tar", members)

    def write_members(self, shard, kinds):
        with tarfile.open(self.folder / f"{shard}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for number, (kind, (members, reason)) in enumerate(kinds.items()):
                self.bad[kind] = (shard, f"{number:04d}", reason)
                for suffix, content in members:
                    name = f"{number:04d}{suffix}"
                    if content in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
                                   tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE):  # fmt: skip
                        tar.addfile(member_header(name, content))
                        self.bad[f"{kind}, its member"] = (
                            shard, name, "member not part of a sample",
                        )  # fmt: skip
                        continue
                    header = tarfile.TarInfo(name)
                    header.size = len(content)
                    tar.addfile(header, io.BytesIO(content))

    def write_shards(self, kinds):
        for number, (kind, (damage, kept)) in enumerate(kinds.items()):
            shard = f"shard{number:02d}"
            members = []
            for row in range(2):
                key = f"{'abcdefghijk'[number]}{row}"
                if row < kept:
                    members += self.sample(shard, key)
                else:
                    content = self.clips[63]
                    members += [(f"{key}.mp4", content), (f"{key}.txt", b"lost with its shard")]
            path = self.tools.write_tar(self.folder / f"{shard}.tar", members)
            path.write_bytes(damage(path.read_bytes(), "abcdefghijk"[number]))
            self.bad[kind] = (shard, "", "damaged shard")

    def write_names(self, shard):
        """Names that lead elsewhere are only keys; repeated and unknown members are left out."""
        members = []
        for key in ("../../up", "/abs/olute", "clip_1.5s", "clip_1.7s", "000000001_00000"):
            members += self.sample(shard, key)
        first, second = self.sample(shard, "x"), self.sample(shard, "y")
        members += [first[0], second[0], second[1], first[1]]  # interleaved
        members += [("x.mp4", self.clips[63]), ("readme.md", b"hello"), ("UPPER.txt", b"no video")]
        members += [("._x.mp4", b"\0\5\x16\7Mac"), ("._x.txt", b"\0\5\x16\7Mac")]
        marked = self.sample(shard, "marked")
        members += [marked[0], ("marked.txt", marked[1][1].decode().encode("utf-16"))]
        self.bad["twin from a Mac"] = (shard, "._x.mp4", "member left by a system")
        self.bad["repeated name"] = (shard, "x.mp4", "member repeated name")
        self.bad["unknown member"] = (shard, "readme.md", "member not part of a sample")
        self.bad["upper case"] = (shard, "UPPER", "no video")
        self.tools.write_tar(self.folder / f"{shard}.tar", members)

    def write_good(self, shard):
        members = []
        for code in self.codes:
            self.good[f"{shard}/{code:04d}"] = code
            members += self.tools.coded_sample(code)[:2]
        self.tools.write_tar(self.folder / f"{shard}.tar", members)


class Tiny(L.LightningModule):
    """Learns a little from every batch and notes what it was given."""

    def __init__(self):
        super().__init__()
        self.video_encoder = torch.nn.Module()
        self.video_encoder.num_frames, self.video_encoder.image_size = 2, 16
        self.head = torch.nn.Linear(3, 1)
        self.given = []

    def training_step(self, batch, batch_idx):
        std, mean = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_STD, IMAGENET_MEAN))
        pixels = (batch["video"][:, 0] * std + mean) * 255
        self.given += zip(batch["key"], batch["text"], pixels, strict=True)
        return self.head(batch["video"].mean((1, 3, 4))).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture
def damaged(tmp_path, tools):
    return Damaged(tmp_path, tools)


def test_a_run_over_forty_kinds_of_damage_finishes_and_accounts_for_all(damaged, tools, tmp_path):
    assert len(damaged.bad) >= 50 and len(damaged.good) == 64
    record = tmp_path / "quarantine.jsonl"
    data = WebVideoData(
        train_videos=[f"{tmp_path}/*.tar", f"{tmp_path}/{{good,gone}}.tar"],
        batch_size=8,
        num_workers=2,
        crop_scale=(1.0, 1.0),
        max_bad=1.0,
        quarantine=str(record),
    )
    model = Tiny()
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=2,
    )
    trainer.fit(model, data)
    assert trainer.global_step >= 2 * 64 // 8
    # The good samples are all seen, and nothing else is.
    assert {key for key, _, _ in model.given} == damaged.good.keys()
    # No caption is ever paired with another sample's media.
    for key, caption, pixels in model.given:
        assert caption == f"video {damaged.good[key]}" == f"video {tools.code_of(pixels)}"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    said = {(line["shard"], line["key"]): line["reason"] for line in lines}
    for kind, (shard, key, reason) in damaged.bad.items():
        assert (shard, key) in said, kind
        assert said[shard, key] == (reason or said[shard, key]), kind
    # No good sample is in the record.
    assert not {f"{shard}/{key}" for shard, key in said} & damaged.good.keys()
    assert {said[shard, key] for shard, key, reason in damaged.bad.values() if reason is None} <= {
        "empty", "unreadable", "no video", "no frames", "too large",
    }  # fmt: skip
