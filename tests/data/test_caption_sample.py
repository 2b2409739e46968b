from tests.shards.clips import write_picture
from tests.shards.test_inspection import write_tar
from vmm.data.caption_sample import sample_captions


def test_a_few_samples_of_a_few_shards_are_read(tmp_path):
    picture = write_picture(tmp_path / "c.jpg", 9).read_bytes()
    paths = []
    for shard in range(20):
        members = [
            member
            for i in range(10)
            for member in ((f"{i}.jpg", picture), (f"{i}.txt", f"{shard} {i}".encode()))
        ]
        paths.append(str(write_tar(tmp_path / f"{shard:02}.tar", members)))
    found = sample_captions(paths, 16)
    assert len(found) == len(set(found)) == 16
    shards = sorted({int(text.split()[0]) for text in found})
    assert len(shards) == 8 and shards[0] < 3 and shards[-1] > 16  # from end to end
    assert len(sample_captions(paths, 10_000)) == 80
    (tmp_path / "00.tar").unlink()
    assert sample_captions([paths[0]], 5) == []
    assert sample_captions([], 5) == []
