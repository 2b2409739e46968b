import math

import pytest
import torch
import torch.nn.functional as F

from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.frames import read_frames, settings_of
from vmm.evaluation.common.journal import Journal
from vmm.evaluation.common.models import ClipVectors, VmmEncoder
from vmm.evaluation.common.sources import AnnotatedClips
from vmm.evaluation.long_video_qa.protocols import read_questions
from vmm.evaluation.long_video_qa.scoring import Viewing, aggregate, look, score_videos
from vmm.models.bert import BertArchitecture
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba


@pytest.fixture
def frames(toys):
    film = toys.mp4(["red", "red", "green", "blue", "blue", "blue", "blue", "white"])
    return read_frames(film, settings_of(toys.Encoder.clip, 8), None)


@pytest.fixture
def texts(toys):
    return toys.Encoder().encode_texts([f"{name} first" for name in toys.NAMES])


def test_a_whole_video_is_scored_in_one_pass(toys, frames, texts):
    encoder = toys.Encoder()
    seen = look(encoder, frames, texts, Viewing())
    assert encoder.calls == 1
    torch.testing.assert_close(seen.similarity, torch.tensor([2, 1, 4, 1]) / 8, rtol=0, atol=0.01)
    assert seen.match.argmax() == 0  # the colour of the first frame
    assert seen.timeline.shape == (4, 8)
    assert seen.timeline.argmax(0).tolist() == [0, 0, 1, 2, 2, 2, 2, 3]


def test_the_matching_head_counts_by_both_logits(toys, frames, texts):
    class Shifted(toys.Encoder):
        def match_logits(self, states, tokens):
            return super().match_logits(states, tokens) + torch.tensor([3.0, 3.0])

    expected = look(toys.Encoder(), frames, texts, Viewing()).match
    assert torch.equal(look(Shifted(), frames, texts, Viewing()).match, expected)


@pytest.mark.parametrize("how", ["mean", "max", "lse"])
def test_windows_become_one_score(toys, frames, texts, how):
    encoder = toys.Encoder()
    seen = look(encoder, frames, texts, Viewing(window=2, aggregate=how))
    assert encoder.calls == 1 and seen.timeline.shape == (4, 4)
    per_window = torch.tensor([[1, 0, 0, 0], [0, 0.5, 0, 0], [0, 0.5, 1, 0.5], [0, 0, 0, 0.5]])
    torch.testing.assert_close(seen.timeline, per_window, rtol=0, atol=0.01)
    match = torch.tensor([[4.0, -4, -4, -4], [-4, 4, -4, -4], [-4, -4, 4, 4], [-4, -4, -4, -4]])
    if how == "mean":
        expected, matched = per_window.mean(1), match.mean(1)
    elif how == "max":
        expected, matched = per_window.amax(1), match.amax(1)
    else:
        expected = 0.1 * torch.tensor(
            [math.log(sum(math.exp(v / 0.1) for v in row) / 4) for row in seen.timeline.tolist()]
        )
        matched = torch.tensor([math.log(sum(math.exp(v) for v in row) / 4) for row in match])
    torch.testing.assert_close(seen.similarity, expected, rtol=0, atol=0.02)
    torch.testing.assert_close(seen.match, matched, rtol=0, atol=1e-4)


def test_embeddings_are_averaged_and_the_head_looks_at_all_windows(toys, frames, texts):
    matched = []

    class Recording(toys.Encoder):
        def match_logits(self, states, tokens):
            matched.append(tokens)
            return super().match_logits(states, tokens)

    seen = look(Recording(), frames, texts, Viewing(window=2, aggregate="embeddings"))
    mean = torch.tensor([2.0, 1, 4, 1]) / 8  # of the windows' mean unit vectors
    torch.testing.assert_close(seen.similarity, F.normalize(mean, dim=-1), rtol=0, atol=0.01)
    assert [tuple(tokens.shape) for tokens in matched] == [(8, 4)]


def test_aggregation_of_one_window_changes_nothing():
    scores = torch.randn(3, 1)
    for how in ("mean", "max", "lse"):
        torch.testing.assert_close(aggregate(scores, how), scores[:, 0])


def test_a_model_without_a_head_has_similarities_only(toys, frames, texts):
    class Plain:
        name, clip = "plain", toys.Encoder.clip

        def encode_videos(self, video):
            return ClipVectors(toys.Encoder().encode_videos(video).projected)

    for viewing in (Viewing(), Viewing(window=3, aggregate="lse"),
                    Viewing(window=3, aggregate="embeddings")):  # fmt: skip
        assert look(Plain(), frames, texts, viewing).match is None


@pytest.fixture
def vmm_encoder(monkeypatch):
    torch.manual_seed(0)
    video = VideoMamba(32, 2, num_frames=4, image_size=32, d_state=4, piece_length=9)
    for name in ("cls_token", "temporal_pos_embedding", "pos_embed"):
        torch.nn.init.normal_(getattr(video, name))
    text = BertTextEncoder(
        32, "recipes/encoders/bert_demo", fusion_layer=1, pretrained=False,
        architecture=BertArchitecture(vocab_size=135, hidden_size=32, num_hidden_layers=2,
                                      num_attention_heads=2, intermediate_size=64),
    )  # fmt: skip
    return VmmEncoder(VideoTextModel(video, text, proj_dim=16).eval(), ClipSettings(4, 32), {})


@torch.inference_mode()
def test_one_long_pass_is_what_the_model_gives_for_a_clip(toys, vmm_encoder):
    film = toys.mp4([toys.NAMES[i % 4] for i in range(11)])
    frames = read_frames(film, settings_of(vmm_encoder.clip, 11), None)
    texts = vmm_encoder.encode_texts(["a red circle", "a blue ring grows"])
    assert vmm_encoder.takes_long_videos
    seen = look(vmm_encoder, frames, texts, Viewing())
    clip = vmm_encoder.encode_videos(torch.cat(list(frames.portions(vmm_encoder.clip)))[None])
    unit = F.normalize(clip.projected[0], dim=-1)
    timeline = F.normalize(texts.projected, dim=-1) @ unit.T
    torch.testing.assert_close(seen.timeline, timeline, rtol=0, atol=1e-5)
    logits = vmm_encoder.match_logits(texts.states, clip.tokens[0])
    torch.testing.assert_close(seen.match, logits[:, 1] - logits[:, 0], rtol=0, atol=1e-4)
    assert torch.equal(vmm_encoder.match(texts.states, clip.tokens[0]), logits[:, 1])


def test_hours_are_encoded_in_portions(toys, vmm_encoder, monkeypatch):
    sizes = []

    def encode_long(frames, num_frames):
        sizes.append((num_frames, [len(part) for part in frames]))
        return ClipVectors(torch.ones(1, num_frames, 16), None)

    monkeypatch.setattr(vmm_encoder, "encode_long", encode_long)
    film = toys.mp4([toys.NAMES[i // 50 % 4] for i in range(200)])
    frames = read_frames(film, vmm_encoder.clip, 1.0)
    seen = look(vmm_encoder, frames, vmm_encoder.encode_texts(["a"]), Viewing())
    assert sizes == [(200, [64, 64, 64, 8])] and seen.timeline.shape == (1, 200)


class Scene:
    def __init__(self, toys, folder, videos=6):
        path = toys.write(folder, videos)
        self.file = read_questions("questions", path)
        self.media = AnnotatedClips(self.file.videos, str(folder / "videos"), toys.Encoder.clip)
        self.journal = Journal(folder / "scores", {"toy": 1})

    def score(self, encoder):
        return score_videos(
            encoder, self.file.questions, self.media, Viewing(num_frames=4), self.journal
        )


def test_every_video_is_encoded_once_per_view(toys, tmp_path):
    scene, encoder = Scene(toys, tmp_path), toys.Encoder()
    questions = scene.file.questions
    scene.file = scene.file._replace(questions=questions + [q._replace(key="x") for q in questions])
    scores = scene.score(encoder)
    assert encoder.calls == 6 * 3 and all(len(s.blind) == 8 for s in scores)
    assert scores[0].views.keys() == {"video", "shuffled", "blank"}
    assert scores[0].duration == pytest.approx(4) and scores[0].seconds == [0, 1, 2, 3]
    assert scores[1].timeline[1][0] == pytest.approx(1, abs=0.01)


def test_a_killed_evaluation_goes_on(toys, tmp_path):
    scene = Scene(toys, tmp_path)

    class Killed(toys.Encoder):
        def encode_videos(self, video):
            if self.calls == 7:
                raise KeyboardInterrupt
            return super().encode_videos(video)

    with pytest.raises(KeyboardInterrupt):
        scene.score(Killed())
    encoder = toys.Encoder()
    resumed = scene.score(encoder)
    assert encoder.calls == 4 * 3  # two of six were finished
    scene.journal.remove()
    assert scene.score(toys.Encoder()) == resumed


def test_an_unreadable_video_is_kept_with_its_reason(toys, tmp_path):
    scene = Scene(toys, tmp_path)
    (tmp_path / "videos" / "é 2.mp4").write_bytes(b"broken")
    (tmp_path / "videos" / "é 4.mp4").unlink()
    scene.media = AnnotatedClips(scene.file.videos, str(tmp_path / "videos"), toys.Encoder.clip)
    scores = scene.score(toys.Encoder())
    assert [s.problem for s in scores] == [None, None, "unreadable", None, "missing", None]
    assert scores[2].views == {} and len(scores[2].blind) == 4


def test_broken_weights_are_a_clear_message(toys, tmp_path):
    with pytest.raises(ValueError, match="question 'ü0' hold NaN"):
        Scene(toys, tmp_path).score(toys.Encoder(broken=True))


def test_timelines_of_hours_are_thinned_out(toys, tmp_path):
    scene = Scene(toys, tmp_path, videos=1)
    (tmp_path / "videos" / "é 0.mp4").write_bytes(
        toys.mp4([toys.NAMES[i // 125] for i in range(500)])
    )
    (scores,) = score_videos(
        toys.Encoder(), scene.file.questions, scene.media, Viewing(fps=1), scene.journal
    )
    assert len(scores.timeline[0]) == len(scores.seconds) == 120
    assert scores.seconds[0] == 0 and scores.seconds[-1] == 499
    assert scores.timeline[3][:80] == [pytest.approx(0, abs=0.01)] * 80
    assert scores.timeline[3][-20:] == [pytest.approx(1, abs=0.01)] * 20


def test_the_toy_matching_head_is_what_the_evaluation_asks_for(toys):
    from vmm.evaluation.common.models import ChoiceMatcher, Matcher, VmmEncoder

    assert isinstance(toys.Encoder(), ChoiceMatcher)
    for protocol in (ChoiceMatcher, Matcher):
        members = {name for name in vars(protocol) if not name.startswith("_")}
        assert members <= set(dir(VmmEncoder)) | {"temperature"}
    assert torch.is_tensor(toys.Encoder().match_logits([torch.ones(1, 5)], torch.ones(1, 4)))
