import os
import unicodedata

import pytest

from vmm.data.annotations.media import MediaError, MediaFolder, media_kind, stem


@pytest.fixture
def folder(tmp_path):
    def make(*files, kind="video"):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        media = MediaFolder(tmp_path, kind)
        return lambda *names: str(media.find(*names).relative_to(tmp_path))

    return make


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("clip.mp4", "clip.mp4"),
        ("clip", "clip.mp4"),
        ("clip.avi", "clip.mp4"),  # re-encoded since
        ("a/b/clip", "clip.mp4"),  # kept without its folders
        ("/data/old/clip.mp4", "clip.mp4"),
        ("film.00.01-00.02", "deep/er/film.00.01-00.02.MKV"),
        ("er/film.00.01-00.02", "deep/er/film.00.01-00.02.MKV"),
        ("./deep/er/film.00.01-00.02.mkv", "deep/er/film.00.01-00.02.MKV"),
        ("a\\b\\clip.mp4", "clip.mp4"),
    ],
)
def test_names_lead_to_files(folder, name, file):
    assert folder("clip.mp4", "deep/er/film.00.01-00.02.MKV", "other.mp4", "clip.txt")(name) == file


def test_folders_must_agree(folder):
    find = folder("3_ego/5.mp4", "4_count/5.mp4", "4_count/6.mp4")
    assert find("3_ego/5.mp4") == "3_ego/5.mp4"
    assert find("video/4_count/5") == "4_count/5.mp4"
    with pytest.raises(MediaError, match=r"missing media: '3_ego/6\.mp4'"):
        find("3_ego/6.mp4")
    with pytest.raises(MediaError, match=r"'5' is 3_ego/5\.mp4 and 4_count/5\.mp4"):
        find("5")


def test_the_named_extension_decides_between_files_of_one_name(folder):
    find = folder("x.mp4", "x.webm", "sub/x.webm")
    assert find("x.webm") == "x.webm" and find("sub/x") == "sub/x.webm"
    with pytest.raises(MediaError, match="ambiguous"):
        find("x")


def test_other_names_are_tried_in_order(folder):
    find = folder("vid1.avi", "youtube.avi")
    assert find("nobody", "youtube", "vid1") == "youtube.avi"
    with pytest.raises(MediaError) as caught:
        find("nobody", "else")
    assert caught.value.reason == "missing"


def test_accents_may_be_one_letter_or_two(folder):
    composed, apart = (unicodedata.normalize(form, "é/vidéo 視頻.mp4") for form in ("NFC", "NFD"))
    assert composed != apart
    assert folder(apart)(composed) == apart


def test_no_name_leaves_the_folder(tmp_path, folder):
    (tmp_path.parent / "secret.mp4").touch()
    find = folder("x.mp4")
    for name in ("../secret.mp4", "../../secret", str(tmp_path.parent / "secret.mp4"), "", "."):
        with pytest.raises(MediaError, match="missing"):
            find(name)


def test_linked_folders_are_followed_once(tmp_path, folder):
    (tmp_path / "real").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    assert folder("real/x.mp4")("x") == "real/x.mp4"


def test_pipes_are_no_media(tmp_path, folder):
    find = folder("a.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(
        MediaError, match=r"unsupported media: 'pipe' is pipe\.mp4, a pipe or device"
    ):
        MediaFolder(tmp_path, "video").find("pipe")
    assert find("a") == "a.mp4"


def test_images_and_videos_are_apart(tmp_path, folder):
    assert folder("x.mp4", "x.jpg", kind="image")("x") == "x.jpg"
    with pytest.raises(ValueError, match=r"there is no video in .*empty"):
        (tmp_path / "empty").mkdir()
        MediaFolder(tmp_path / "empty", "video")
    with pytest.raises(ValueError, match="is not a folder"):
        MediaFolder(tmp_path / "nothing", "video")


def test_names_are_taken_apart():
    assert stem("a/b.c/x.1-2.3.mp4") == "x.1-2.3" and stem("x.1-2.3") == "x.1-2.3"
    assert stem(".mp4") == ".mp4" and stem("X.MP4") == "X"
    assert media_kind("a.JPG", "video") == "image" and media_kind("a.m4v", "image") == "video"
    assert media_kind("a", "image") == "image" and media_kind("a.1", "video") == "video"


def test_what_is_not_read_is_named_with_its_remedy(tmp_path, folder):
    find = folder("a.rmvb", "b.ts", "c.m2ts", "old/d.y4m", "e.mjpeg", "e.mp4")
    assert find("a") == "a.rmvb" and find("b.mp4") == "b.ts" and find("e") == "e.mp4"
    with pytest.raises(MediaError, match=r"'d.mp4' is old/d.y4m: .*ffmpeg -i old/d.y4m") as caught:
        find("d.mp4")
    assert caught.value.reason == "unsupported"
    (tmp_path / "only").mkdir()
    (tmp_path / "only/x.hevc").touch()
    with pytest.raises(ValueError, match=r"no video in .*ffmpeg -i x\.hevc x\.mp4"):
        MediaFolder(tmp_path / "only", "video")


@pytest.mark.parametrize("name", ["a [v2].mp4", "[1]/a.mp4", "a*.mp4", "a{1,2}.mp4", "a?.mp4"])
def test_names_are_no_patterns(folder, name):
    assert folder(name, "a1.mp4")(name) == name
