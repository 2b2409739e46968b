"""mteb's own evaluators on tasks that are made of the tests' clips; nothing is downloaded."""

import json

import mteb
import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, Video
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification
from mteb.models import EncoderProtocol
from mteb.results import TaskResult

from tests.data.videos import encode_video, moving_picture
from tests.export.runs import write_run
from vmm.cli import main
from vmm.evaluation.leaderboards.mteb_model import MtebEncoder
from vmm.evaluation.leaderboards.mteb_results import TaskFile, from_mteb, mteb_table, to_mteb
from vmm.evaluation.retrieval.compare import compare
from vmm.evaluation.retrieval.page import build_report
from vmm.evaluation.retrieval.results import RetrievalResult
from vmm.export.command import main as export
from vmm.export.encoder import VideoTextEncoder
from vmm.metrics import hit_probability, retrieval_metrics, text_to_video_ranks

WORDS = ("a", "red", "circle", "moves", "left")
CAPTIONS = [" ".join(WORDS[i] for i in order) for order in (
    (0,), (1, 2), (2, 3), (3, 4, 0), (4, 1), (0, 1, 2, 3), (2,), (3, 0, 1),
)]  # fmt: skip
ABOUT = {
    "description": "made of the tests' clips",
    "dataset": {"path": "nowhere", "revision": "1"},
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
    "reference": None,
    "date": None,
    "domains": None,
    "task_subtypes": None,
    "license": None,
    "annotations_creators": None,
    "dialect": None,
    "sample_creation": None,
    "bibtex_citation": None,
}


@pytest.fixture(scope="module")
def films():
    sizes = [(6 + i, 32 + 8 * (i % 3), 40 + 8 * (i % 2)) for i in range(len(CAPTIONS))]
    return [encode_video(moving_picture(*size, seed=i)) for i, size in enumerate(sizes)]


def column(films):
    names = [str(i) for i in range(len(films))]
    rows = [{"bytes": film, "path": None} for film in films]
    data = Dataset.from_dict({"id": names, "video": rows})
    return data.cast_column("video", Video(decode=False)).cast_column("video", Video())


def task_of(films, direction):
    """Clips and captions, one to one, as the video tasks of mteb have them."""
    names = [str(i) for i in range(len(films))]
    texts = Dataset.from_dict({"id": names, "text": CAPTIONS})
    queries, corpus = (texts, column(films)) if direction == "t2v" else (column(films), texts)

    class Task(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"Tests{direction.upper()}Retrieval",
            type="Any2AnyRetrieval",
            category=direction,
            modalities=["text", "video"],
            main_score="ndcg_at_10",
            **ABOUT,
        )

        def load_data(self, **_):
            qrels = {name: {name: 1} for name in names}
            split = RetrievalSplitData(
                queries=queries, corpus=corpus, relevant_docs=qrels, top_ranked=None
            )
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    return Task()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("encoder")
    write_run(out / "run", seed=0)
    assert export([str(out / "run"), str(out / "encoder")]) == 0
    return out / "encoder"


@pytest.fixture(scope="module")
def encoder(folder):
    return VideoTextEncoder.from_pretrained(folder, device="cpu", tune=False)


@pytest.fixture(scope="module")
def written(films, encoder, tmp_path_factory):
    """What mteb writes of both directions."""
    out = tmp_path_factory.mktemp("mteb")
    model = MtebEncoder(encoder)
    found = mteb.evaluate(
        model,
        [task_of(films, "t2v"), task_of(films, "v2t")],
        cache=None,
        prediction_folder=out / "predictions",
        show_progress_bar=False,
        encode_kwargs={"batch_size": 3, "show_progress_bar": False},
    )
    for result in found.task_results:
        result.to_disk(out / f"{result.task_name}.json")
    (out / "model_meta.json").write_text(json.dumps(model.mteb_model_meta.to_dict(), default=str))
    return out


@pytest.fixture(scope="module")
def files(written):
    return [TaskFile.read(written / f"Tests{d}Retrieval.json") for d in ("T2V", "V2T")]


@pytest.fixture(scope="module")
def similarity(films, encoder):
    scores = encoder.encode_text(CAPTIONS) @ encoder.encode_video(films).T
    return torch.from_numpy(scores)


def ndcg(ranks):
    """By its definition, with one right answer: 1 / log2(1 + rank) within the first ten."""
    places = ranks.better + 1
    return ((1 / torch.log2(places + 1.0)) * (places <= 10)).mean().item()


def test_mtebs_numbers_are_vmms(files, similarity):
    for file, scores in zip(files, (similarity, similarity.T), strict=True):
        ranks = text_to_video_ranks(scores.contiguous(), torch.arange(len(scores)))
        assert int(ranks.tied.max()) == 1
        for k in (1, 5, 10):
            want = hit_probability(ranks, k).mean().item()
            assert file.scores[f"hit_rate_at_{k}"] == pytest.approx(want, abs=1e-4)
        assert file.scores["ndcg_at_10"] == pytest.approx(ndcg(ranks), abs=1e-4)
        assert file.scores["main_score"] == file.scores["ndcg_at_10"]
    assert 0 < files[0].scores["hit_rate_at_5"] < 1  # else the test would see little


def test_a_result_of_mteb_becomes_one_of_vmm_and_is_compared_and_shown(
    files, written, similarity, tmp_path
):
    result = from_mteb(files, written / "predictions", "tests")
    want = retrieval_metrics(similarity, torch.arange(len(similarity)))
    found = result.scores["vectors"]
    for name, value in want.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    read = RetrievalResult.read(result.write(tmp_path))
    assert read.scores == result.scores
    assert {d.p for d in compare(result, read)} == {1.0}
    table = build_report(tmp_path / "report.html", [], [("tests", tmp_path)])
    assert f"{want['t2v_recall_5']:.1f}" in table and "one vector each" in table
    assert "mteb TestsT2VRetrieval" in (tmp_path / "report.html").read_text()
    assert "TestsV2TRetrieval" in mteb_table(files)


def test_a_result_of_vmm_is_written_as_mteb_does(files, written):
    result = from_mteb(files, written / "predictions")
    for file in files:
        content = to_mteb(result, file.direction)
        (ours,) = content["scores"]["test"]
        names = [name for name in ours if "_at_" in name or name in ("accuracy", "main_score")]
        assert len(names) == 6 * 7 + 2
        for name in names:
            assert ours[name] == pytest.approx(file.scores[name], abs=1e-4), name
        assert TaskResult.model_validate(content).main_score == pytest.approx(ours["main_score"])


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("data", {"test_set": "MSRVTT-1kA"}, r"879 of the 1,000 clips; run `vmm eval mteb"),
        ("data", {"captions_per_video": [1, 20]}, "one caption for each clip, and this one 1 to"),
        ("data", {"clips": {"unreadable": 2, "lost": {}}}, "could not be read"),
        ("settings", {"frame_order": "reversed"}, "played reversed"),
        ("queries", {}, "2 queries have wrong answers as good"),
        ("scores", {}, "no scores by one vector each"),
    ],
)
def test_what_mteb_does_not_measure_is_refused(files, written, part, changes, said):
    result = from_mteb(files, written / "predictions")
    getattr(result, part).update(changes)
    if part == "queries":
        result.queries["vectors"]["t2v"]["tied"][:2] = [2, 3]
    if part == "scores":
        result.scores["vectors"] = None
    with pytest.raises(ValueError, match=said):
        to_mteb(result, "t2v")


def test_files_that_do_not_belong_together_are_refused(files, written, tmp_path):
    with pytest.raises(ValueError, match="not the two directions of a task"):
        from_mteb(files[:1] * 2, written / "predictions")
    other = files[1]._replace(revision="2")
    with pytest.raises(ValueError, match="of two data sets"):
        from_mteb([files[0], other], written / "predictions")
    with pytest.raises(ValueError, match="cannot be read as a file of mteb"):
        from_mteb(files, tmp_path)
    wrong = files[0]._replace(scores=files[0].scores | {"hit_rate_at_1": 0.99})
    with pytest.raises(ValueError, match=r"R@1 .* where mteb says 99\.0"):
        from_mteb([wrong, files[1]], written / "predictions")
    (tmp_path / "x.json").write_text('{"scores": {"test": []}}')
    with pytest.raises(ValueError, match="one split and one subset"):
        TaskFile.read(tmp_path / "x.json")


def test_zero_shot_classes_with_a_prompt(films, encoder):
    labels = ["a red circle", "moves left"]

    class Task(AbsTaskZeroShotClassification):
        input_column_name = "video"
        metadata = TaskMetadata(
            name="TestsZeroShot",
            type="VideoZeroshotClassification",
            category="v2t",
            modalities=["video", "text"],
            main_score="accuracy",
            **ABOUT,
        )

        def load_data(self, **_):
            data = column(films).add_column("label", [i % 2 for i in range(len(films))])
            self.dataset, self.data_loaded = DatasetDict({"test": data}), True

        def get_candidate_labels(self):
            return labels

    def accuracy(model):
        found = mteb.evaluate(model, Task(), cache=None, show_progress_bar=False)
        return found.task_results[0].get_score()

    clips = encoder.encode_video(films)
    for prompts, texts in (
        ({}, labels),
        ({"TestsZeroShot": "left {} moves"}, [f"left {label} moves" for label in labels]),
    ):
        scores = clips @ encoder.encode_text(texts).T
        want = np.mean(scores.argmax(1) == np.arange(len(films)) % 2)
        # A task that mteb does not list is no key that it checks, so it is set past the check.
        model = MtebEncoder(encoder)
        model._prompts = prompts
        assert accuracy(model) == pytest.approx(want, abs=1e-4)


def test_the_model_is_what_mteb_takes(encoder, films):
    model = MtebEncoder(encoder, num_frames=6, prompts={"query": "a {}"}, name="me/mine")
    assert isinstance(model, EncoderProtocol)
    meta = model.mteb_model_meta
    assert (meta.name, meta.revision) == ("me/mine", encoder.fingerprint)
    assert meta.embed_dim == 8 and meta.modalities == ["text", "video"]
    assert meta.n_parameters == sum(p.numel() for p in encoder.model.parameters())
    vectors = encoder.encode_text(CAPTIONS)
    np.testing.assert_allclose(
        np.diag(model.similarity(vectors, vectors)),
        model.similarity_pairwise(vectors, vectors),
        atol=1e-6,
    )
    for prompts, said in (({"query": "a video"}, "must have one {}"), ({"no": "{}"}, "mteb knows")):
        with pytest.raises(ValueError, match=said):
            MtebEncoder(encoder, prompts=prompts)


def test_videos_and_texts_together_and_columns_that_are_not_read(encoder, films):
    class Loader:
        dataset = column(films[:2]).add_column("text", CAPTIONS[:2])

    where = {"task_metadata": task_of(films, "v2t").metadata, "hf_split": "", "hf_subset": ""}
    found = MtebEncoder(encoder).encode(Loader(), **where)
    mean = encoder.encode_text(CAPTIONS[:2]) + encoder.encode_video(films[:2])
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5)
    Loader.dataset = Dataset.from_dict({"audio": ["x"]})
    with pytest.raises(ValueError, match="asks for audio; this model reads videos and texts only"):
        MtebEncoder(encoder).encode(Loader(), **where)


def test_the_command(written, tmp_path, capsys, folder):
    results = [str(written / f"Tests{d}Retrieval.json") for d in ("T2V", "V2T")]
    out, predictions = str(tmp_path / "out"), str(written / "predictions")
    assert main(["eval", "mteb", "--results", *results, "--out", out]) == 0
    assert "R@10" in capsys.readouterr().out and not list((tmp_path / "out").iterdir())
    given = ["--results", *results, "--predictions", predictions, "--out", out]
    assert main(["eval", "mteb", *given]) == 0
    path = tmp_path / "out/TestsRetrieval/retrieval.json"
    assert path.is_file() and str(path) in capsys.readouterr().out
    assert main(["eval", "mteb", "--retrieval", str(path), "--out", out]) == 0
    names = {p.name for p in (tmp_path / "out").glob("*.json")}
    assert len(names) == 2 and all(name.endswith(("-T2V.json", "-V2T.json")) for name in names)
    assert main(["eval", "mteb", str(folder), "--tasks", "NoSuchTask", "--out", out]) == 2
    assert "mteb has no such task" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["eval", "mteb", "--out", out])
