import io
import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from eval import classification
from tests.data.videos import encode_video
from tests.models import published as make
from vmm.evaluation.classification import run as module
from vmm.evaluation.classification.options import Options
from vmm.evaluation.classification.results import ClassificationResult
from vmm.evaluation.classification.views import ViewedEncoder
from vmm.export.published import import_checkpoint
from vmm.models.classifier import VideoClassifier
from vmm.models.video_text import VideoTextModel
from vmm.runs import build
from vmm.shards.tars import write_shard

COLOURS = {"red": (230, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 230)}


def mp4(colour, frames=6, size=(32, 48)):
    picture = np.full((frames, *size, 3), COLOURS[colour], np.uint8)
    return encode_video(picture, preset="ultrafast", crf="8")


@pytest.fixture
def videos(tmp_path):
    """Six films, two of a colour; the same base name in two folders; one that is broken."""
    folder = tmp_path / "videos"
    lines = []
    for number, colour in enumerate(COLOURS):
        for camera in ("cam1", "cam2"):
            (folder / camera).mkdir(parents=True, exist_ok=True)
            broken = (colour, camera) == ("blue", "cam2")
            data = b"no film" if broken else mp4(colour)
            (folder / camera / f"{colour}.mp4").write_bytes(data)
            lines.append(f"{camera}/{colour}.mp4,{number},1.0")
    listed = tmp_path / "test.csv"
    listed.write_text("\n".join(lines))
    return folder, listed


@pytest.fixture
def classifier(tmp_path):
    """A file in the published layout whose head only knows how bright each colour channel is."""

    def build(classes, bias=None):
        state = make.classifier(32, 1, classes, grid=2, frames=4).tensors(scale=0.2)
        if bias is not None:
            state["head.weight"].zero_()
            state["head.bias"] = torch.tensor(bias)
        torch.save(state, tmp_path / "classifier.pth")
        out = tmp_path / f"imported-{classes}"
        import_checkpoint(str(tmp_path / "classifier.pth"), out)
        return out

    return build


def run(capsys, *arguments):
    status = classification.main([*map(str, arguments), "--num-workers", "0", "--device", "cpu"])
    return status, capsys.readouterr()


def read(folder):
    return json.loads((folder / "classification.json").read_text())


def test_a_browser_shows_the_page(classifier, videos, tmp_path, capsys, look_at):
    folder, listed = videos
    arguments = ["--dataset", "breakfast", "--annotations", listed, "--media", folder]
    assert run(capsys, "--run", classifier(10), *arguments, "--out", tmp_path / "out")[0] == 0
    look_at(tmp_path / "out/classification.html")


def test_an_imported_classifier_sees_all_views(classifier, videos, tmp_path, capsys):
    folder, listed = videos
    arguments = ["--dataset", "breakfast", "--annotations", listed, "--media", folder]
    out = tmp_path / "out"
    status, said = run(capsys, "--run", classifier(10, [5.0] + [0.0] * 9), *arguments, "--out", out)
    assert status == 0, said.err
    result = read(out)
    numbers, settings = result["numbers"], result["settings"]
    assert (settings["clips"], settings["crops"], settings["fit"]) == (4, 3, "crop")
    assert settings["sampling"] == "random_finetune" and settings["kind"] == "trained classifier"
    # Always class 0: both red ones are right, in two folders under one base name.
    assert numbers["top_1"] == pytest.approx(100 / 3) and result["data"]["readable"] == 5
    assert [p[2] for p in result["predictions"]] == [0, 0, 0, 0, 0, None]
    found = {f["code"] for f in result["findings"]}
    assert found == {"unreadable-samples", "base-names", "size", "class-count"}
    page = (out / "classification.html").read_text()
    assert "Beside published numbers" in page
    assert "http" not in page.replace("http-equiv", "").replace("https://arxiv.org/abs/", "")
    assert page.count("data:image/jpeg;base64,") == 3  # the wrong ones that can be read
    assert not (out / "features").exists()
    status, said = run(
        capsys, "--run", tmp_path / "imported-10", *arguments, "--out", out,
        "--coverage", "available", "--clips", "1", "--crops", "1",
    )  # fmt: skip
    assert read(out)["numbers"]["top_1"] == pytest.approx(40)
    assert "views" in said.out


def test_views_of_a_real_head_are_the_mean_of_their_probabilities(
    classifier, videos, tmp_path, monkeypatch, capsys
):
    folder, listed = videos
    kept = {}
    score = module.score_classes

    def spy(options, encoder, truths, seen, views):
        kept["seen"] = seen
        return score(options, encoder, truths, seen, views)

    monkeypatch.setattr(module, "score_classes", spy)
    run(
        capsys, "--run", classifier(3), "--dataset", "breakfast", "--annotations", listed,
        "--media", folder, "--out", tmp_path / "out",
    )  # fmt: skip
    logits = kept["seen"].vectors
    assert logits.shape == (5, 12, 3)
    expected = logits.softmax(-1).mean(1).argmax(1).tolist()
    assert [p[2] for p in read(tmp_path / "out")["predictions"][:5]] == expected


def test_a_number_to_predict(classifier, videos, tmp_path, capsys):
    folder, _ = videos
    listed = tmp_path / "like_ratio.csv"
    rows = ["like_ratio youtube_id imdb_id", "0.5 cam1/red tt1", "2.5 cam1/green tt2"]
    listed.write_text("\n".join(rows))
    arguments = ["--annotations", listed, "--media", folder, "--out", tmp_path / "out"]
    model = classifier(1, [1.5])
    status, said = run(capsys, "--run", model, "--dataset", "lvu-like-ratio", *arguments)
    assert status == 0, said.err
    result = read(tmp_path / "out")
    assert result["numbers"]["mse"] == pytest.approx(1.0, abs=1e-4)
    assert result["numbers"]["constant"] == pytest.approx(1.0)
    assert "mean squared error" in said.out
    status, said = run(capsys, "--run", classifier(3), "--dataset", "lvu-like-ratio", *arguments)
    assert status == 2 and "one output" in said.err


@pytest.mark.parametrize(
    ("dataset", "rule"), [("k400", "random_finetune"), ("ssv2", "random_ssv2")]
)
def test_an_import_sees_the_frames_that_its_data_set_is_published_with(
    classifier, tmp_path, dataset, rule
):
    options = Options(run=classifier(3), dataset=dataset, annotations=tmp_path, media=tmp_path)
    clip = module._open(options).clip
    assert clip.sampling == rule
    assert (clip.fit, clip.interpolation, clip.antialias) == ("crop", "bilinear", False)


@pytest.fixture
def trained(tmp_path):
    """A run of ClassificationTask whose head always says the same."""

    def make(outputs, model=(), data=()):
        encoder = {"embed_dim": 32, "depth": 1, "num_frames": 2, "image_size": 32}
        encoder |= {"pooling": "cls", "pool_norm": False}
        node = {"class_path": "vmm.models.videomamba.VideoMamba", "init_args": encoder}
        arguments = {"video_encoder": node, "num_classes": len(outputs)} | dict(model)
        task = {
            "class_path": "vmm.tasks.classification.ClassificationTask", "init_args": arguments,
        }  # fmt: skip
        config = {"model": task, "data": {"init_args": dict(data)}}
        folder = tmp_path / "trained"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        built = build(config, VideoClassifier)
        torch.nn.init.zeros_(built.head.weight)
        built.head.bias.data = torch.tensor(outputs)
        state = {f"model.{key}": value for key, value in built.state_dict().items()}
        torch.save({"state_dict": state}, folder / "checkpoints" / "last.ckpt")
        return folder

    return make


def test_a_trained_run_is_asked_as_it_was_trained(trained, demo_shards, tmp_path, root, capsys):
    model = {"classes": str(root / "recipes/demo/motions.txt")}
    data = {"label_field": "attributes.motion", "sampling": "random_ssv2", "fit": "squash"}
    run_folder = trained([0.0, 0.0, 3.0, *[0.0] * 5], model, data)
    shards = ["--run", run_folder, "--shards", f"{demo_shards.folder}/test-*.tar"]
    status, said = run(capsys, *shards, "--out", tmp_path / "out")
    assert status == 0, said.err
    result = read(tmp_path / "out")
    assert result["settings"]["sampling"] == "random_ssv2" and result["settings"]["fit"] == "squash"
    assert (result["settings"]["clips"], result["settings"]["crops"]) == (1, 1)
    assert result["classes"][2] == "up" and {p[2] for p in result["predictions"]} == {2}
    ups = sum(label == 2 for _, label, _ in result["predictions"])
    assert result["numbers"]["top_1"] == pytest.approx(100 * ups / 16)
    assert result["data"]["numbered_by"] == "the order of motions.txt"
    status, _ = run(capsys, *shards, "--out", tmp_path / "views", "--clips", "2", "--crops", "3")
    settings = read(tmp_path / "views")["settings"]
    assert status == 0 and (settings["clips"], settings["fit"]) == (2, "crop")


def test_a_trained_run_that_predicts_a_number(trained, tmp_path, capsys):
    members = [
        member
        for i in range(3)
        for member in [
            (f"{i}.mp4", mp4("red")), (f"{i}.txt", b"a film"),
            (f"{i}.json", json.dumps({"score": i}).encode()),
        ]
    ]  # fmt: skip
    write_shard(tmp_path / "shard.tar", [members])
    folder = trained([1.0], {"problem_type": "regression"}, {"label_field": "score"})
    arguments = ["--run", folder, "--shards", tmp_path / "shard.tar", "--out", tmp_path / "out"]
    status, said = run(capsys, *arguments)
    assert status == 0, said.err
    assert read(tmp_path / "out")["numbers"]["mse"] == pytest.approx(2 / 3, abs=1e-5)


def test_a_trained_run_that_says_several_classes(trained, tmp_path, capsys):
    labels = [[0], [0, 2], [2], [1]]
    members = [
        [
            (f"{i}.mp4", mp4("red") if i != 3 else b"no film"),  # captions are not needed
            (f"{i}.json", json.dumps({"kinds": kinds}).encode()),
        ]
        for i, kinds in enumerate(labels)
    ]  # fmt: skip
    write_shard(tmp_path / "shard.tar", members)
    folder = trained([1.0, 0.0, 2.0], {"problem_type": "multi_label"}, {"label_field": "kinds"})
    arguments = ["--run", folder, "--shards", tmp_path / "shard.tar", "--out", tmp_path / "out"]
    status, said = run(capsys, *arguments)
    assert status == 0 and "mean average precision" in said.out, said.err
    result = read(tmp_path / "out")
    # All readable scores are equal: 2 of 3 for the first and third class; the second class' only
    # sample cannot be read, so it comes after all others.
    found = result["numbers"]["mean_average_precision"]
    assert found == pytest.approx(100 * (2 / 3 + 1 / 4 + 2 / 3) / 3)
    assert result["numbers"]["constant"] == pytest.approx(100 * (2 / 4 + 1 / 4 + 2 / 4) / 3)
    assert [p[1] for p in result["predictions"]] == labels and result["predictions"][3][2] is None
    assert "Equal scores" in (tmp_path / "out/classification.html").read_text()
    folder.rename(tmp_path / "old")
    arguments[1] = trained([1.0, 0.0, 2.0], {}, {"label_field": "kinds"})
    status, said = run(capsys, *arguments)
    assert status == 2 and "has 2 labels, and the model says one class of each" in said.err


def picture(colour, size=(32, 48)):
    buffer = io.BytesIO()
    Image.new("RGB", size[::-1], COLOURS[colour]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def stills(tmp_path):
    """A folder of each colour with two pictures, of which one is broken; and the same in shards."""
    members = []
    for colour in COLOURS:
        (tmp_path / "stills" / colour).mkdir(parents=True)
        for number in range(2):
            broken = (colour, number) == ("red", 1)
            data = b"no picture" if broken else picture(colour)
            (tmp_path / "stills" / colour / f"{number}.png").write_bytes(data)
            members.append([(f"{colour}{number}.png", data), (f"{colour}{number}.cls", b"2")])
    write_shard(tmp_path / "stills.tar", members)
    return tmp_path / "stills"


def test_an_imported_image_classifier_sees_folders_of_classes(stills, tmp_path, capsys):
    state = make.classifier(32, 1, 3, grid=2, frames=None).tensors(scale=0.2)
    state["head.weight"].zero_()
    state["head.bias"] = torch.tensor([0.0, 5.0, 0.0])  # green
    torch.save(state, tmp_path / "image.pth")
    import_checkpoint(str(tmp_path / "image.pth"), tmp_path / "imported")
    arguments = ["--run", tmp_path / "imported", "--annotations", stills, "--out", tmp_path / "out"]
    status, said = run(capsys, *arguments, "--dataset", "imagenet")
    assert status == 0, said.err
    result = read(tmp_path / "out")
    assert result["classes"] == ["blue", "green", "red"]
    assert result["numbers"]["top_1"] == pytest.approx(100 * 2 / 6)
    assert result["predictions"][-1] == ["red/1.png", 2, None] and result["data"]["readable"] == 5
    settings = result["settings"]
    assert (settings["media"], settings["clips"], settings["crops"]) == ("image", 1, 1)
    clip = module._open(Options(run=tmp_path / "imported", dataset="imagenet")).clip
    assert (clip.fit, clip.crop_pct, clip.interpolation, clip.antialias) == (
        "crop", 0.875, "bicubic", True,
    )  # fmt: skip
    page = (tmp_path / "out/classification.html").read_text()
    assert "1 view of a still" in page and "VideoMamba-S, 224 pixels" in page
    found = {finding["code"] for finding in result["findings"]}
    assert "size" in found and "base-names" in found
    status, said = run(capsys, *arguments, "--dataset", "class-folders")
    assert status == 0 and "size" not in {f["code"] for f in read(tmp_path / "out")["findings"]}


def test_a_trained_run_sees_stills_in_shards(trained, stills, tmp_path, capsys):
    folder = trained([0.0, 0.0, 3.0])
    shards = ["--run", folder, "--shards", f"{stills}.tar", "--out", tmp_path / "out"]
    status, said = run(capsys, *shards, "--clips", "4")  # of a still there is one
    assert status == 0, said.err
    result = read(tmp_path / "out")
    assert result["settings"]["clips"] == 1 and result["settings"]["media"] == "image"
    assert result["numbers"]["top_1"] == pytest.approx(100 * 5 / 6)


def test_stills_by_prompts(stage2, stills, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--dataset", "class-folders", "--annotations", stills, "--out", out]
    status, said = run(capsys, "--run", stage2, *arguments)
    assert status == 0, said.err
    assert read(out)["classes"] == ["blue", "green", "red"] and "of a still" in said.out


@pytest.fixture
def stage2(tmp_path, root):
    """A run with an untrained video-text model."""
    args = {
        "video_encoder": {
            "class_path": "vmm.models.videomamba.VideoMamba",
            "init_args": {"embed_dim": 32, "depth": 1, "num_frames": 4, "image_size": 32},
        },
        "text_encoder": {
            "class_path": "vmm.models.text_encoder.BertTextEncoder",
            "init_args": {
                "name": str(root / "recipes/encoders/bert_demo"),
                "fusion_layer": 2,
                "pretrained": False,
            },
        },
        "proj_dim": 8,
    }
    config = {"model": {"init_args": args}, "data": {"init_args": {}}}
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    model = build(config, VideoTextModel)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoints" / "last.ckpt")
    return folder


def test_prompts_on_shards(stage2, demo_shards, capsys):
    shards = ["--shards", f"{demo_shards.folder}/test-*.tar"]
    status, said = run(
        capsys, "--run", stage2, *shards, "--class-field", "attributes.shape",
        "--template", "a {} moves", "--template", "a red {}",
    )  # fmt: skip
    assert status == 0, said.err
    result = read(stage2 / "classification_shape")
    assert result["classes"] == ["bar", "circle", "cross", "ring"]
    assert result["settings"]["templates"] == ["a {} moves", "a red {}"]
    assert result["settings"]["kind"] == "zero-shot by prompts" and "zero-shot" in said.out
    assert len(result["predictions"]) == 16 and result["numbers"]["chance"] == 25
    status, said = run(capsys, "--run", stage2, *shards, "--class-field", "attributes.form")
    assert status == 2 and "--class-field" in said.err


def test_prompts_whose_vectors_are_no_numbers_are_no_misses(
    stage2, demo_shards, monkeypatch, capsys
):
    broken = torch.full((4, 8), torch.nan)
    monkeypatch.setattr("vmm.evaluation.classification.scoring.class_vectors", lambda *_: broken)
    shards = ["--shards", f"{demo_shards.folder}/test-*.tar", "--class-field", "attributes.shape"]
    status, said = run(capsys, "--run", stage2, *shards)
    assert status == 2 and "scores of the classes hold NaN or infinity" in said.err


def test_classes_without_names_cannot_be_prompted(stage2, videos, tmp_path, capsys):
    folder, listed = videos
    arguments = ["--dataset", "breakfast", "--annotations", listed, "--media", folder]
    status, said = run(capsys, "--run", stage2, *arguments)
    assert status == 2 and "--classes FILE" in said.err
    names = tmp_path / "names.txt"
    names.write_text("red\ngreen\nblue\n")
    status, said = run(capsys, "--run", stage2, *arguments, "--classes", names, "--crops", "3")
    assert status == 0, said.err
    assert read(stage2 / "classification_breakfast")["settings"]["fit"] == "crop"


def test_a_killed_evaluation_goes_on(stage2, demo_shards, monkeypatch, capsys):
    arguments = ["--run", stage2, "--shards", f"{demo_shards.folder}/test-*.tar",
                 "--class-field", "attributes.shape", "--batch-size", "4"]  # fmt: skip
    encode, calls = ViewedEncoder.encode_videos, []

    def dies(self, video):
        calls.append(len(video))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(self, video)

    monkeypatch.setattr(ViewedEncoder, "encode_videos", dies)
    assert run(capsys, *arguments)[0] == 130
    assert run(capsys, *arguments)[0] == 0
    assert sum(calls[3:]) == 16 - 8


def test_failed_downloads_in_shards_are_wrong_not_left_out(stage2, tmp_path, capsys):
    import tarfile

    shard = tmp_path / "some-000.tar"
    with tarfile.open(shard, "w") as tar:
        for key, media in (("a", mp4("red")), ("b", None)):
            parts = {"txt": b"x", "json": json.dumps({"label": key}).encode()}
            for extension, data in parts.items() | ({("mp4", media)} if media else set()):
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    status, said = run(capsys, "--run", stage2, "--shards", shard)
    assert status == 0, said.err
    result = read(stage2 / "classification_label")
    assert result["data"]["listed"] == 2 and result["data"]["problems"] == {"missing": 1}
    assert result["numbers"]["top_1"] == 50


def test_a_model_of_one_s_own_is_evaluated_from_python(toys, videos, tmp_path):
    folder, listed = videos
    (tmp_path / "names.txt").write_text("\n".join(COLOURS))
    options = Options(
        model=toys.Colours(),
        dataset="breakfast",
        annotations=listed,
        media=str(folder),
        classes=tmp_path / "names.txt",
        out=tmp_path / "out",
    )
    result = module.evaluate(options)
    assert result.numbers["top_1"] == pytest.approx(500 / 6)
    assert result.name == "colours" and result.model == options.model.identity()
    assert ClassificationResult.read(tmp_path / "out") == result
