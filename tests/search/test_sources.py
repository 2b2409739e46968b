import io
import os
import tarfile
from pathlib import Path

import pytest

from vmm.data.schema import VIDEO_EXTENSIONS
from vmm.search.sources import Source, digest_of, find_sources


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "videos" / "shard.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for name in ("x/1.mp4", "x/1.txt", "../../escape.webm", "picture.jpg", "3.mkv"):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    return path


def test_files_folders_and_shards(shard):
    folder = shard.parent
    (folder / "deep").mkdir()
    for name in ("b.mp4", "a.MOV", "deep/c.webm", "notes.txt", "deep/d.mp4.part"):
        (folder / name).write_bytes(b"")
    found, problems = find_sources([folder, folder / "b.mp4"])
    files = [str(s.path.relative_to(folder)) for s in found if not s.member]
    assert files == ["a.MOV", "b.mp4", "deep/c.webm"]
    members = [s.member for s in found if s.member]
    assert members == ["x/1.mp4", "../../escape.webm", "3.mkv"] and not problems


def test_what_systems_leave_is_no_video(tmp_path):
    folder = tmp_path / "__MACOSX" / "videos"  # that one was asked for
    for name in ("a.mp4", "._a.mp4", "._shard.tar", "__MACOSX/a.mp4", "@eaDir/a.mp4/x.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"video")
    found, problems = find_sources([folder])
    assert found == [Source(folder / "a.mp4")] and not problems


def test_members_of_one_name_in_two_shards_have_names_of_their_own(tmp_path):
    name = str(tmp_path / "elsewhere" / "a.mp4")  # an absolute one
    for shard in ("a.tar", "b.tar"):
        with tarfile.open(tmp_path / shard, "w") as tar:
            for member in (name, "a.mp4", "../a.mp4", os.fsdecode(b"caf\xe9.mp4")):
                info = tarfile.TarInfo(member)
                info.size = len(shard)
                tar.addfile(info, io.BytesIO(shard.encode()))
    found, _ = find_sources([tmp_path])
    assert len(found) == len({str(source) for source in found}) == 8
    for source in found:
        assert str(source).startswith(str(source.path)) and str(source).endswith(source.member)
        assert source.content() == source.path.name.encode()
        assert source.share(1) == 0
    assert not (tmp_path / "elsewhere").exists()


def test_members_are_read_from_the_shard_whatever_their_names(shard):
    for source in find_sources([shard])[0]:
        assert source.content() == source.member.encode()
        assert digest_of(source.content()) == digest_of(source.member.encode())
    with pytest.raises(OSError, match="no longer holds"):
        Source(shard.resolve(), "4.mkv").content()


def test_links_are_followed_inside_the_folder_only(tmp_path):
    outside, folder = tmp_path / "secret.mp4", tmp_path / "videos"
    outside.write_bytes(b"secret")
    folder.mkdir()
    (folder / "real.mp4").write_bytes(b"real")
    (folder / "inside.mp4").symlink_to(folder / "real.mp4")
    (folder / "out.mp4").symlink_to(outside)
    (folder / "up").symlink_to(tmp_path)
    found, problems = find_sources([folder])
    assert found == [Source(folder / "real.mp4")]
    assert list(problems) == [Source(folder / "out.mp4")]
    assert "link out of the folder" in problems[Source(folder / "out.mp4")]
    (tmp_path / "named.mp4").symlink_to(outside)
    assert find_sources([tmp_path / "named.mp4"])[0] == [Source(outside)]


def test_pipes_devices_and_links_in_a_circle_are_told(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    (tmp_path / "nowhere.mp4").symlink_to("gone.mp4")
    (tmp_path / "a.mp4").touch()
    videos, problems = find_sources([tmp_path])
    assert problems == {Source(tmp_path / "pipe.mp4"): "a pipe or device, no file"}
    assert [video.path.name for video in videos] == ["a.mp4", "circle.mp4", "gone.mp4"]
    with pytest.raises(OSError, match="circle"):
        digest_of(videos[1].content())
    with pytest.raises(ValueError, match="zero is no video"):
        find_sources([Path("/dev/zero")])


def test_a_link_that_took_the_place_of_a_file_is_not_followed(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"video")
    source = find_sources([path])[0][0]
    assert source.content() == path
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="link"):
        source.content()


def test_what_is_no_video_is_refused_and_a_damaged_shard_is_told(tmp_path, shard):
    with pytest.raises(ValueError, match=r"there is no .*nothing"):
        find_sources([tmp_path / "nothing"])
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="is no video"):
        find_sources([tmp_path / "notes.txt"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no video in"):
        find_sources([tmp_path / "empty"])
    os.truncate(shard, 1024)
    found, problems = find_sources([shard])
    assert [s.member for s in found] == ["x/1.mp4"] and "damaged shard" in problems[Source(shard)]


def test_every_container_is_found_and_what_is_not_read_is_told(tmp_path):
    read = [f"{name}.{name}" for name in VIDEO_EXTENSIONS] + ["A.MTS", "with [v2].3gp"]
    unread = ["bare.h264", "live.m3u8", "packed.tar.gz"]
    for name in (*read, *unread, "logo.svg", "notes.txt", "photo.heic"):
        (tmp_path / name).write_bytes(b"")
    found, problems = find_sources([tmp_path])
    assert [source.path.name for source in found] == sorted(read)
    assert [source.path.name for source in problems] == unread
    said = [problems[Source(tmp_path / name)] for name in unread]
    assert "ffmpeg -i bare.h264" in said[0] and "gunzip packed.tar.gz" in said[2]
    for name in unread:
        with pytest.raises(ValueError, match=r"is no video that can be read; .*(convert|unpack)"):
            find_sources([tmp_path / name])


def test_shares_divide_all_videos_evenly(tmp_path):
    sources = [Source(tmp_path / f"{i}.mp4") for i in range(300)]
    shares = [[s for s in sources if s.share(3) == i] for i in range(3)]
    assert sum(map(len, shares)) == 300 and min(map(len, shares)) > 70
