import io
from fractions import Fraction

import av
import numpy as np
import pytest

import vmm.data.decode as module
from tests.data import videos
from vmm.data.decode import DecodeError, decode_video

CODECS = {"h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "prores"}


def full_decode(data):
    """Every frame (T, H, W, 3), upright, pixels square, and its time from the first on."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(video=0))
        aspect = container.streams.video[0].sample_aspect_ratio or 1
    width = round(frames[0].width * Fraction(aspect.numerator, aspect.denominator))
    how = {"width": width, "interpolation": "BICUBIC"} if width != frames[0].width else {}
    pixels = [np.rot90(f.to_ndarray(format="rgb24", **how), round(f.rotation / 90)) for f in frames]
    return np.stack(pixels), [f.time - frames[0].time for f in frames]


def spread(available, num_frames):
    return np.linspace(0, available - 1, num_frames).astype(int).tolist()


def assert_exact(data, numbers, ordered=True, **options):
    everything, times = full_decode(data)
    last = len(everything) - 1
    for wanted in (*(spread(last + 1, n) for n in numbers), [last, 0, last]):
        seen = []
        frames = decode_video(data, lambda t, s=seen, w=wanted: (s.append(t), w)[1], **options)
        assert frames.shape == everything[wanted].shape
        assert np.array_equal(frames, everything[wanted])
        assert len(seen) == 1
        if ordered:
            assert np.allclose(seen[0], times, rtol=0, atol=1e-9)
        else:
            assert len(seen[0]) == len(times) and (np.diff(seen[0]) > 0).all()


@pytest.fixture
def no_full_decode(monkeypatch):
    """Forbid the way out: the frames must come from the groups that hold them."""

    def refuse(*arguments):
        raise AssertionError("everything was decoded")

    monkeypatch.setattr(module, "_decode_everything", refuse)


def test_there_are_enough_kinds_of_videos():
    """Encoders come with PyAV: no kind may be left out without notice."""
    assert [kind for kind in videos.KINDS if not videos.has_encoder(kind)] == []
    assert (
        len(videos.KINDS) >= 50 and {kind.split()[0].strip(",") for kind in videos.KINDS} >= CODECS
    )


@pytest.mark.smoke
@pytest.mark.parametrize("kind", videos.KINDS)
def test_frames_and_times_are_those_of_a_full_decode(kind, request):
    recipe = videos.KINDS[kind]
    if recipe.groups:
        request.getfixturevalue("no_full_decode")
    assert_exact(videos.make(kind), [1, 3, 8, recipe.frames], recipe.ordered)


@pytest.mark.parametrize("kind", videos.KINDS)
def test_any_single_frame_is_exact(kind):
    everything, _ = full_decode(videos.make(kind))
    for number in range(0, len(everything), 3):
        frame = decode_video(videos.make(kind), lambda t, n=number: [n])
        assert np.array_equal(frame[0], everything[number])


@pytest.fixture(scope="module")
def torchcodec():
    try:
        decode_video(videos.make("h264"), lambda t: [0], decoder="torchcodec")
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("torchcodec")
@pytest.mark.parametrize("kind", videos.KINDS)
def test_torchcodec_gives_the_same_frames(kind):
    data = videos.make(kind)
    if any(word in kind for word in ("10 bit", "odd", "interlaced")):
        everything, _ = full_decode(data)
        frames = decode_video(data, lambda t: [20, 3, 9], decoder="torchcodec").astype(int)
        distance = np.abs(frames[:, None] - everything[None]).mean((2, 3, 4))
        assert distance.argmin(1).tolist() == [20, 3, 9]
    else:
        assert_exact(data, [1, 5], videos.KINDS[kind].ordered, decoder="torchcodec")


def test_torchcodec_that_does_not_run_is_a_mistake_of_the_user(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ValueError, match="use decoder: pyav") as caught:
        decode_video(videos.make("h264"), lambda t: [0], decoder="torchcodec")
    assert not isinstance(caught.value, DecodeError)


@pytest.mark.usefixtures("no_full_decode")
def test_camera_clips_are_decoded_exactly(camera_clip):
    assert_exact(camera_clip, [1, 8, 30])


@pytest.mark.parametrize("gop", [5, 12])
@pytest.mark.parametrize("bframes", [0, 3])
@pytest.mark.usefixtures("no_full_decode")
def test_any_group_length_is_decoded_exactly(tools, gop, bframes):
    data = tools.encode_video(
        tools.moving_picture(31), preset="veryfast", g=str(gop), bf=str(bframes)
    )
    assert_exact(data, [4, 9, 31])


@pytest.mark.parametrize(("height", "width"), [(16, 16), (2, 130)])
def test_small_sizes(tools, height, width):
    frames = tools.moving_picture(11, height, width)
    data = tools.encode_video(frames, pix_fmt="yuv444p", g="4")
    assert_exact(data, [3])
    assert decode_video(data, lambda t: [0]).shape == (1, height, width, 3)


def test_times_that_are_not_of_presentation_are_not_believed():
    # Without its table of offsets a file's presentation times are those of decoding.
    data = videos.make("h264").replace(b"ctts", b"free")
    assert_exact(data, [1, 8, 20], ordered=False)


def test_a_key_frame_that_is_none_is_noticed():
    # The table says that every frame is a key frame; only every twelfth is.
    data = videos.make("h264")
    assert_exact(data.replace(b"stss", b"free"), [1, 8, 30])


@pytest.mark.parametrize(
    ("kind", "wanted", "sent"),
    [
        # Groups of 12: the frames of two groups, from their key frames on.
        ("h264 without B-frames", [0, 15], 1 + 4),
        ("h264 without B-frames", [7, 0, 3], 8),
        ("h264 key frames only", [3, 9, 9], 2),
        ("mjpeg mkv", [3, 9], 2),
        ("prores", [29], 1),
    ],
)
def test_only_needed_packets_are_decoded(monkeypatch, kind, wanted, sent):
    found = module.needed_packets
    runs = []

    def spy(*arguments):
        runs.extend(found(*arguments))
        return runs

    monkeypatch.setattr(module, "needed_packets", spy)
    decode_video(videos.make(kind), lambda t: wanted)
    assert sum(map(len, runs)) == sent


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_tags_turn_the_picture(tools, degrees):
    frames = np.zeros((6, 32, 48, 3), np.uint8)
    frames[:, :8, :8] = 255  # a bright patch in the top left corner
    data = videos.with_rotation(tools.encode_video(frames, crf="4"), degrees)
    picture = decode_video(data, lambda t: [2])[0, :, :, 0]
    # The matrix turns clockwise; numpy turns counter-clockwise.
    assert np.abs(picture.astype(int) - np.rot90(frames[2, :, :, 0], -degrees // 90)).mean() < 4


@pytest.fixture(scope="module")
def mp4(tools):
    return tools.encode_video(tools.moving_picture(20), g="5")


@pytest.mark.smoke
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
            decode_video(data, lambda t: [0])
        assert caught.value.reason == reason
    for data in (
        mp4[: len(mp4) // 2],
        b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
        b"\0" * 99,
    ):
        with pytest.raises(DecodeError):
            decode_video(data, lambda t: range(len(t)))


def test_damaged_files_give_frames_or_a_decode_error_and_nothing_else(mp4):
    rng = np.random.default_rng(1)
    outcomes = {"frames": 0, "error": 0}
    for _ in range(150):
        damaged = np.frombuffer(mp4, np.uint8).copy()
        where = rng.integers(0, len(damaged), rng.integers(1, 60))
        damaged[where] = rng.integers(0, 256, len(where))
        try:
            frames = decode_video(damaged.tobytes(), lambda t: [len(t) - 1, 0])
            assert frames.dtype == np.uint8 and len(frames) == 2
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
        decode_video(mp4, lambda t: [0], max_pixels=48 * 64 - 1)
    with pytest.raises(DecodeError, match="too long"):
        decode_video(mp4, lambda t: [0], max_frames=19)
    gif = tools.encode_video(tools.moving_picture(9), codec="gif", container="gif", pix_fmt="rgb8")
    with pytest.raises(DecodeError, match="too long"):
        decode_video(gif, lambda t: [0], max_frames=8)
    assert len(decode_video(mp4, lambda t: [0], max_frames=20, max_pixels=48 * 64)) == 1


def test_a_decode_error_survives_the_way_out_of_a_worker():
    import pickle

    error = pickle.loads(pickle.dumps(DecodeError("too long", "9 frames")))
    assert (error.reason, str(error)) == ("too long", "too long: 9 frames")
