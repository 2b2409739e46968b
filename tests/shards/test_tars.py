import hashlib
import tarfile

from vmm.shards.tars import write_shard


def test_the_bytes_depend_on_nothing_but_the_samples(tmp_path):
    file = tmp_path / "clip.mp4"
    file.write_bytes(b"a clip" * 300)
    samples = [[("0.mp4", file), ("0.txt", b"said")], [("1.mp4", b"another")]]
    digest = write_shard(tmp_path / "a.tar", samples)
    file.touch()
    file.chmod(0o600)
    assert write_shard(tmp_path / "b.tar", iter(samples)) == digest
    assert hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest() == digest
    with tarfile.open(tmp_path / "a.tar") as tar:
        found = [(member.name, tar.extractfile(member).read()) for member in tar]
    assert found == [("0.mp4", b"a clip" * 300), ("0.txt", b"said"), ("1.mp4", b"another")]
    assert write_shard(tmp_path / "c.tar", samples[::-1]) != digest
