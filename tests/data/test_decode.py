import io
import struct

import av
import numpy as np
import pytest
import torch
from PIL import Image

import vmm.data.decode as module
from vmm.data.decode import DecodeError, decode_image, decode_video
from vmm.data.sampling import frame_indices


def full_decode(data):
    """Every frame, in the order the decoder shows them."""
    with av.open(io.BytesIO(data)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def assert_exact(data, numbers):
    everything = full_decode(data)
    for num_frames in numbers:
        wanted = frame_indices(len(everything), num_frames, "middle")
        seen = []

        def choose(available, wanted=wanted, seen=seen):
            seen.append(available)
            return wanted

        assert torch.equal(decode_video(data, choose), everything[wanted])
        assert set(seen) == {len(everything)}
    last = len(everything) - 1
    assert torch.equal(decode_video(data, lambda n: [last, 0, last]), everything[[last, 0, last]])


def need_encoder(settings):
    codec = settings.get("codec", "libx264")
    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this PyAV has no encoder {codec}")


@pytest.fixture
def no_full_decode(monkeypatch):
    """Forbid the way out: the frames must come from the groups that hold them."""

    def refuse(*arguments):
        raise AssertionError("everything was decoded")

    monkeypatch.setattr(module, "_decode_everything", refuse)


@pytest.mark.usefixtures("no_full_decode")
def test_camera_clips_are_decoded_exactly(camera_clip):
    assert_exact(camera_clip, [1, 8, 30])


@pytest.mark.parametrize("gop", [1, 5, 12, 250])
@pytest.mark.parametrize("bframes", [0, 3])
@pytest.mark.usefixtures("no_full_decode")
def test_any_group_length_is_decoded_exactly(tools, gop, bframes):
    data = tools.encode_video(
        tools.moving_picture(31), preset="veryfast", g=str(gop), bf=str(bframes)
    )
    assert_exact(data, [1, 4, 9, 31, 40])


@pytest.mark.parametrize(
    "settings",
    [
        {"x264-params": "open-gop=1:keyint=8:bframes=3:b-adapt=0:b-pyramid=normal"},
        {"rate": "30000/1001", "g": "9"},
        {"rate": "24000/1001", "g": "9", "container": "matroska"},
        {"container": "mov", "g": "6"},
        {"codec": "libx265", "x265-params": "keyint=8:log-level=none"},
        {"codec": "libx265", "x265-params": "keyint=8:open-gop=1:bframes=4:log-level=none"},
    ],
    ids=lambda s: "-".join(s.values())[:40],
)
@pytest.mark.usefixtures("no_full_decode")
def test_groups_of_other_kinds_are_decoded_exactly(tools, settings):
    need_encoder(settings)
    assert_exact(tools.encode_video(tools.moving_picture(27), **settings), [1, 5, 27])


@pytest.mark.parametrize(
    "settings",
    [
        {"x264-params": "keyint=10:bframes=3:intra-refresh=1"},  # no clean key frames
        {"codec": "libvpx-vp9", "container": "webm", "g": "8"},
        {"codec": "libvpx", "container": "webm", "g": "8", "auto-alt-ref": "1"},
        {"codec": "mpeg4", "container": "avi", "g": "8", "bf": "2"},
        {"codec": "gif", "container": "gif", "pix_fmt": "rgb8"},
    ],
    ids=lambda s: s.get("codec", "intra-refresh"),
)
def test_other_codecs_are_decoded_exactly(tools, settings):
    need_encoder(settings)
    assert_exact(tools.encode_video(tools.moving_picture(27), **settings), [1, 5, 27])


@pytest.mark.parametrize(("height", "width"), [(47, 63), (16, 16), (2, 130)])
def test_odd_and_small_sizes(tools, height, width):
    frames = tools.moving_picture(11, height, width)
    data = tools.encode_video(frames, pix_fmt="yuv444p", g="4")
    assert_exact(data, [3])
    assert decode_video(data, lambda n: [0]).shape == (1, 3, height, width)


def test_variable_frame_rate_counts_frames_not_time(tools):
    times = np.cumsum([7, 90, 15, 400, 33, 1, 250, 8, 60, 500, 20, 33] * 2).tolist()
    data = tools.encode_video(tools.moving_picture(24), times=times, g="6", bf="2")
    assert_exact(data, [4, 24])


def test_only_needed_groups_are_decoded(tools, monkeypatch):
    data = tools.encode_video(tools.moving_picture(60), g="10", bf="0")
    sent = []

    def counting(found):
        def wrapped(packets, wanted):
            runs = found(packets, wanted)
            sent.append(sum(end - first for first, end in runs))
            return runs

        return wrapped

    monkeypatch.setattr(module, "_runs", counting(module._runs))
    decode_video(data, lambda n: [0, 31])
    assert sent == [1 + 2]


def with_rotation(mp4, degrees):
    """Write a display matrix into the track header, as a phone does."""
    angle = np.deg2rad(degrees)
    cos, sin = round(np.cos(angle)), round(np.sin(angle))
    matrix = [cos, sin, 0, -sin, cos, 0, 0, 0, 1]
    fixed = [int(v * (1 << (30 if i % 3 == 2 else 16))) for i, v in enumerate(matrix)]
    start = mp4.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version 0, up to the matrix
    return mp4[:start] + struct.pack(">9i", *fixed) + mp4[start + 36 :]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_tags_turn_the_picture(tools, degrees):
    frames = np.zeros((6, 32, 48, 3), np.uint8)
    frames[:, :8, :8] = 255  # a bright patch in the top left corner
    data = with_rotation(tools.encode_video(frames, crf="4"), degrees)
    picture = decode_video(data, lambda n: [2])[0, 0].numpy()
    # The matrix turns clockwise; numpy turns counter-clockwise.
    assert np.abs(picture.astype(int) - np.rot90(frames[2, :, :, 0], -degrees // 90)).mean() < 4


@pytest.fixture(scope="module")
def mp4(tools):
    return tools.encode_video(tools.moving_picture(20), g="5")


def test_garbage_of_all_kinds_is_a_decode_error(mp4, tools):
    rng = np.random.default_rng(0)
    audio_only = io.BytesIO()
    with av.open(audio_only, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    cases = {
        "empty": b"",
        "no video": audio_only.getvalue(),
        "unreadable": rng.bytes(4000),
    }
    for reason, data in cases.items():
        with pytest.raises(DecodeError) as caught:
            decode_video(data, lambda n: [0])
        assert caught.value.reason == reason
    for data in (
        mp4[: len(mp4) // 2],
        b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
        b"\0" * 99,
    ):
        with pytest.raises(DecodeError):
            decode_video(data, lambda n: range(n))


def test_damaged_files_give_frames_or_a_decode_error_and_nothing_else(mp4):
    rng = np.random.default_rng(1)
    outcomes = {"frames": 0, "error": 0}
    for _ in range(150):
        damaged = np.frombuffer(mp4, np.uint8).copy()
        where = rng.integers(0, len(damaged), rng.integers(1, 60))
        damaged[where] = rng.integers(0, 256, len(where))
        try:
            frames = decode_video(damaged.tobytes(), lambda n: [n - 1, 0])
            assert frames.dtype == torch.uint8 and len(frames) == 2
            outcomes["frames"] += 1
        except DecodeError:
            outcomes["error"] += 1
    assert min(outcomes.values()) > 0


def test_mistakes_of_the_caller_are_not_called_damage(mp4):
    def choose(available):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        decode_video(mp4, choose)


def test_limits(mp4, tools):
    with pytest.raises(DecodeError, match="too large: 64x48"):
        decode_video(mp4, lambda n: [0], max_pixels=48 * 64 - 1)
    with pytest.raises(DecodeError, match="too long"):
        decode_video(mp4, lambda n: [0], max_frames=19)
    gif = tools.encode_video(tools.moving_picture(9), codec="gif", container="gif", pix_fmt="rgb8")
    with pytest.raises(DecodeError, match="too long"):
        decode_video(gif, lambda n: [0], max_frames=8)
    assert len(decode_video(mp4, lambda n: [0], max_frames=20, max_pixels=48 * 64)) == 1


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_images_are_clips_of_one_frame(tools, name):
    pixels = tools.moving_picture(1)[0]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name)
    expected = np.array(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
    frames = decode_image(buffer.getvalue())
    assert frames.shape == (1, 3, *pixels.shape[:2]) and frames.dtype == torch.uint8
    assert np.array_equal(frames[0].permute(1, 2, 0).numpy(), expected)


def test_images_are_upright_and_rgb():
    grey = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to show
    buffer = io.BytesIO()
    grey.save(buffer, "PNG", exif=exif)
    frames = decode_image(buffer.getvalue())
    assert np.array_equal(frames[0, 2].numpy(), np.rot90(np.array(grey), -1))


def test_bad_images_are_decode_errors(tools):
    jpeg = tools.coded_jpeg(3)
    bomb = io.BytesIO()
    Image.new("L", (3000, 3000)).save(bomb, "PNG")
    for data, reason in ((b"", "empty"), (b"no image", "unreadable"), (jpeg[:200], "unreadable")):
        with pytest.raises(DecodeError, match=reason):
            decode_image(data)
    with pytest.raises(DecodeError, match="too large: 3000x3000"):
        decode_image(bomb.getvalue(), max_pixels=1_000_000)


def test_a_decode_error_survives_the_way_out_of_a_worker():
    import pickle

    error = pickle.loads(pickle.dumps(DecodeError("too long", "9 frames")))
    assert (error.reason, str(error)) == ("too long", "too long: 9 frames")
