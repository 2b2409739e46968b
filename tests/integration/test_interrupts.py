"""Ctrl-C: one sentence, status 130, and what was computed is kept."""

import csv
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import lightning as L
import pytest
import torch
from safetensors.torch import load_file

from tests.data.conftest import write_tar
from tests.data.videos import encode_video, moving_picture
from vmm.cli import main
from vmm.tasks.base import TrainingTask


class Presser(L.Callback):
    """Presses Ctrl-C at a moment, and notes what is validated."""

    def __init__(self, when="", number=0, times=1, signal=signal.SIGINT):
        self.moment, self.times, self.validated = (when, number), times, []
        self.signal = signal

    def at(self, *moment):
        if moment == self.moment:
            for _ in range(self.times):
                os.kill(os.getpid(), self.signal)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.at("training", trainer.global_step)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if not trainer.sanity_checking:
            self.validated += batch["key"]
            self.at("validation", batch_idx)

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.at("prediction", batch_idx)


@pytest.fixture
def run(root, demo_shards, tmp_path, monkeypatch, capsys):
    """Run a trainer command with a ``Presser``; give its status, its last line and its folder."""
    monkeypatch.chdir(root)

    def run(command, presser, version, *options):
        monkeypatch.setattr(TrainingTask, "configure_callbacks", lambda task: [presser])
        logger = "--trainer.logger.init_args"
        status = main(
            [
                *(command, "-c", "recipes/stage2_vtt.yaml", "-c", "recipes/overlays/debug.yaml"),
                *demo_shards.options(images=False),
                "--data.init_args.train_images=null",
                "--data.init_args.steps_per_epoch=4",
                f"{logger}.save_dir={tmp_path}",
                f"{logger}.version={version}",
                *options,
            ]
        )
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        captured = capsys.readouterr().err
        assert "Traceback" not in captured
        return status, captured.rstrip().splitlines()[-1], tmp_path / "stage2_vtt" / version

    return run


def steps_of(folder):
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["global_step"], checkpoint["WebVideoData"]["completed"]


def test_training_stops_after_its_step_and_goes_on_from_there(run):
    status, said, first = run("fit", Presser("training", 1), "first")
    last = first / "checkpoints" / "last.ckpt"
    assert status == 130
    how = f"go on with --resume (elsewhere: --ckpt_path {last})"
    assert said == f"vmm: stopped by Ctrl-C; 2 steps are done, {how}"
    assert steps_of(first) == (2, 2)
    page = (first / "report.html").read_text()
    assert "It was stopped, and goes on with" in page and "What training makes small" in page
    status, _, second = run("fit", Presser(), "second", f"--ckpt_path={first}")
    assert status == 0 and steps_of(second) == (4, 4)


def weights_of(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def curve_of(folder, name):
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.slow
def test_the_same_command_goes_on_with_resume_as_if_nothing_had_been(run, number, capsys):
    often = "--trainer.log_every_n_steps=1"
    status, _, whole = run("fit", Presser(), "whole", often)
    assert status == 0
    stopped = Presser("training", 1, signal=number)
    status, said, folder = run("fit", stopped, "part", often, "--resume")
    assert status == 75 and f"stopped by {signal.Signals(number).name}; 2 steps are done" in said
    record = json.loads((folder / "run.json").read_text())
    assert (record["end"], record["status"], record["step"]) == ("preempted", 75, 2)
    assert run("fit", Presser(), "part", often, "--resume")[0] == 0
    record = json.loads((folder / "run.json").read_text())
    assert (record["end"], record["status"], record["step"]) == ("done", 0, 4)
    page = (folder / "report.html").read_text()  # of both parts
    assert "It is finished; 4 steps are done." in page and ">step 0<" in page and ">3<" in page
    assert steps_of(folder) == (4, 4)
    for a, b in zip(weights_of(whole).values(), weights_of(folder).values(), strict=True):
        assert torch.equal(a, b)
    assert curve_of(folder, "train/loss") == curve_of(whole, "train/loss") == [0, 1, 2, 3]
    status, said, _ = run("fit", Presser(), "part", often, "--resume")
    assert status == 0 and "there is nothing to train" in said
    assert steps_of(folder) == (4, 4)
    assert json.loads((folder / "run.json").read_text()) == record


def test_the_recipe_s_learning_rate_wins_over_the_checkpoint_s(run):
    optimizer = "--model.init_args.optimizer.init_args"
    status, _, folder = run("fit", Presser("training", 1), "part", "--resume")
    assert status == 130
    other = (f"{optimizer}.lr=0.5", "--model.init_args.weight_decay=0.25")
    status, _, _ = run("fit", Presser("training", 2), "part", "--resume", *other)
    assert status == 130
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    groups = state["optimizer_states"][0]["param_groups"]
    assert {group["initial_lr"] for group in groups} == {0.5, 0.5 * 0.3}
    assert {group["weight_decay"] for group in groups} == {0.25, 0.0}
    assert state["lr_schedulers"][0]["base_lrs"] == [group["initial_lr"] for group in groups]
    assert (folder / "config-0.yaml").is_file()


@pytest.mark.parametrize("which", ["last", "best"])
def test_last_and_best_mean_the_run_s(run, which):
    status, _, folder = run("fit", Presser("training", 1), "part")
    assert status == 130
    status, _, _ = run("fit", Presser(), "part", f"--ckpt_path={which}")
    assert status == 0 and steps_of(folder) == (4, 4)
    status, said, _ = run("fit", Presser(), "part")
    assert status == 2 and "holds a run already" in said and "--resume" in said


def test_the_second_press_stops_at_once(run):
    status, said, folder = run("fit", Presser("training", 1, times=2), "run")
    assert status == 130
    assert said == "vmm: stopped by Ctrl-C; the run directory keeps the checkpoints that it has"
    assert not (folder / "checkpoints").exists()


def test_a_validation_that_was_stopped_is_done_anew(run):
    whole = "--trainer.limit_val_batches=1.0"
    status, said, first = run("fit", Presser("validation", 2), "first", whole)
    assert status == 130 and "4 steps are done, go on with" in said
    assert steps_of(first) == (4, 4)
    again = Presser()
    status, _, second = run("fit", again, "second", whole, f"--ckpt_path={first}")
    assert status == 0 and steps_of(second) == (4, 4)
    assert len(again.validated) == len(set(again.validated)) == 16
    assert "val/t2v_recall_1" in (second / "metrics.csv").read_text()


@pytest.fixture(scope="module")
def trained(root, demo_shards, tmp_path_factory):
    """A run directory of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        recipe = ("-c", "recipes/stage2_vtt.yaml", "-c", "recipes/overlays/debug.yaml")
        options = (
            *demo_shards.options(images=False),
            "--data.init_args.train_images=null",
            "--trainer.limit_val_batches=0",
            f"--trainer.logger.init_args.save_dir={folder}",
            "--trainer.logger.init_args.version=run",
        )
        assert main(["fit", *recipe, *options]) == 0
    return folder / "stage2_vtt" / "run"


def test_predictions_that_were_made_are_kept(run, trained):
    given = f"--ckpt_path={trained}"
    status, said, folder = run("predict", Presser("prediction", 2), "part", given)
    assert status == 130 and said == "vmm: stopped by Ctrl-C"
    keys = json.loads((folder / "embeddings_unfinished.json").read_text())
    vectors = load_file(folder / "embeddings_unfinished.safetensors")
    assert len(keys) == 8 == len(vectors["video"]) == len(vectors["text"])
    _, _, whole = run("predict", Presser(), "whole", given)
    every = load_file(whole / "embeddings.safetensors")
    assert torch.equal(every["video"][:8], vectors["video"])
    assert json.loads((whole / "embeddings.json").read_text())[:8] == keys


def test_predictions_go_on_past_a_batch_of_broken_clips(run, trained, demo_shards, tmp_path):
    (source,) = demo_shards.folder.glob("test-*.tar")
    with tarfile.open(source) as old:
        members = [(m.name, old.extractfile(m).read()) for m in old.getmembers()][:12]
    broken = {name for name, _ in members if name.endswith(".mp4") and "000000001" in name}
    assert len(broken) == 1
    spoilt = [(n, data[:99] if n in broken else data) for n, data in members]
    write_tar(tmp_path / "spoilt.tar", spoilt)
    options = (
        f"--ckpt_path={trained}",
        f"--data.init_args.test_videos={tmp_path}/spoilt.tar",
        "--data.init_args.batch_size=1",
    )
    status, _, folder = run("predict", Presser(), "one", *options)
    assert status == 0
    keys = json.loads((folder / "embeddings.json").read_text())
    assert [key[-1] for key in keys] == ["0", "2", "3"]
    assert load_file(folder / "embeddings.safetensors")["video"].shape == (3, 4, 64)
    assert "unreadable" in (folder / "quarantine.jsonl").read_text()
    nothing = [(n, d[:99] if n.endswith(".mp4") else d) for n, d in members]
    write_tar(tmp_path / "spoilt.tar", nothing)
    status, said, _ = run("predict", Presser(), "none", *options)
    assert status == 2 and "none of the test clips can be read" in said


def press(command, ready, cwd):
    """Start a command, press Ctrl-C in its terminal when a file is there; what it said."""
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TQDM_DISABLE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        while process.poll() is None and not ready():
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, said.strip()


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder of 48 videos with their captions file, and 24 shards of them."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "media").mkdir()
    clip = encode_video(moving_picture(60, 96, 96))
    names = [f"{number:03d}.mp4" for number in range(48)]
    for name in names:
        (folder / "media" / name).write_bytes(clip)
    captions = [{"video": name, "caption": "a dog"} for name in names]
    (folder / "captions.json").write_text(json.dumps(captions))
    for number in range(24):
        members = [("0.mp4", clip), ("0.txt", b"a dog"), ("1.mp4", clip), ("1.txt", b"a cat")]
        write_tar(folder / f"{number:02d}.tar", members)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_finished_shards_stay_and_the_others_are_made_later(films, tmp_path, root, workers):
    out = tmp_path / "out"
    command = [
        *("data_prep.make_shards", films / "captions.json", films / "media", "-o", out),
        *("--samples-per-shard", 4, "--layout", "mp4", "--short-side", 64, "--workers", workers),
    ]
    status, said = press(command, lambda: (out / "00001.tar").exists(), root)
    kept = "the shards that are finished stay, the same command makes the rest"
    assert (status, said) == (130, f"python -m data_prep.make_shards: stopped by Ctrl-C; {kept}")
    finished = set(out.glob("*.tar"))
    assert 2 <= len(finished) < 12
    before = {path: path.stat().st_mtime_ns for path in finished}
    from vmm.shards.command import main_make as make_shards

    assert make_shards([*map(str, command[1:-1]), "0"]) == 0
    assert len(list(out.glob("*.tar"))) == 12 and not list(out.glob("*.partial"))
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_inspected_is_reported(films, tmp_path, monkeypatch, capsys, workers):
    from vmm.shards import command as shards
    from vmm.shards import inspection

    def pressed(items, **options):
        for number, item in enumerate(items):
            if number == 5:
                os.kill(os.getpid(), signal.SIGINT)
            yield item

    monkeypatch.setattr(inspection, "tqdm", pressed)
    command = [f"{films}/*.tar", "-o", str(tmp_path), "--workers", str(workers)]
    assert shards.main_inspect(command) == 130
    said = f"stopped by Ctrl-C; {tmp_path} describes the first 5 of 24 shards"
    assert said in capsys.readouterr().err
    shards = json.loads((tmp_path / "report.json").read_text())["shards"]
    assert (shards["count"], shards["unread"]) == (5, 19)


def test_a_press_while_a_library_reads_is_not_swallowed(films, tmp_path, monkeypatch, capsys):
    """PyAV ignores what is raised in the seek of a Python file."""
    from vmm.shards import command as shards
    from vmm.shards import shard_statistics

    seek, calls = shard_statistics._Slice.seek, []

    def pressed(self, *arguments):
        calls.append(1)
        if len(calls) == 40:
            os.kill(os.getpid(), signal.SIGINT)
        return seek(self, *arguments)

    monkeypatch.setattr(shard_statistics._Slice, "seek", pressed)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    command = [f"{films}/*.tar", "-o", str(tmp_path), "--workers", "0"]
    assert shards.main_inspect(command) == 130
    captured = capsys.readouterr().err
    assert "Exception ignored" not in captured and "stopped by Ctrl-C" in captured


@pytest.mark.parametrize(
    "work",
    ["pool.submit(time.sleep, 300)", "[pool.submit(bytes, 10**8) for _ in range(300)][-1]"],
    ids=["long", "half a result handed over"],
)
def test_processes_are_not_waited_for(tmp_path, work):
    begun = tmp_path / "begun"
    code = (
        "import pathlib, sys, time\nfrom vmm.shards.processes import process_pool\n"
        "if __name__ == '__main__':\n"
        "    with process_pool(1, 1) as pool:\n"
        "        pool.submit(pathlib.Path.touch, pathlib.Path('begun')).result()\n"
        f"        ({work}).result()\n"
    )
    (tmp_path / "long.py").write_text(code)

    def at_work():
        return begun.exists() and time.time() > begun.stat().st_mtime + 0.5

    status, said = press(["long"], at_work, tmp_path)
    assert status == -signal.SIGINT and said.count("Traceback") == 1  # of the main process


def test_a_data_set_that_was_not_finished_is_not_there(tmp_path, root):
    out = tmp_path / "demo"
    said_by = "python -m data_prep.synthesize"
    command = ["data_prep.synthesize", "--out", out, "--train", 2000, "--workers", 2]
    status, said = press(command, lambda: any(tmp_path.glob(".*/*.tar")), root)
    assert (status, said) == (130, f"{said_by}: stopped by Ctrl-C; nothing was written")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("how", "steps"), [("for ever", 900), ("for a while", 20)])
def test_a_stopped_worker_is_named_or_waited_for(root, demo_shards, tmp_path, how, steps):
    command = [
        *(sys.executable, "-m", "vmm", "fit", "-c", "recipes/stage2_vtt.yaml"),
        *("-c", "recipes/overlays/debug.yaml", *demo_shards.options()),
        *("--data.init_args.num_workers=1", f"--data.init_args.steps_per_epoch={steps}"),
        *("--trainer.limit_val_batches=0", "--watchdog.silence=3"),
        "--trainer.callbacks+=tests.integration.onlookers.WritePid",
        *(
            f"--trainer.logger.init_args.save_dir={tmp_path}",
            "--trainer.logger.init_args.version=r",
        ),
    ]
    environment = os.environ | {"PYTHONPATH": str(root), "PID_FOLDER": str(tmp_path)}
    said = tmp_path / "said"
    with said.open("w") as file:
        process = subprocess.Popen(command, cwd=root, env=environment, stderr=file)
    while process.poll() is None and not (tmp_path / "pid-0").exists():
        time.sleep(0.05)
    lists = Path(f"/proc/{process.pid}/task").glob("*/children")
    (worker,) = (int(pid) for path in lists for pid in path.read_text().split())
    os.kill(worker, signal.SIGSTOP)
    if how == "for a while":
        time.sleep(1.5)
        os.kill(worker, signal.SIGCONT)
        assert process.wait(timeout=120) == 0, said.read_text()[-3000:]
        return
    assert process.wait(timeout=60) == 69
    *_, message, page = said.read_text().splitlines()
    assert page == f"vmm: report:     {tmp_path / 'stage2_vtt/r/report.html'}"
    assert f"the worker with pid {worker} is stopped, at the batch for step " in message
    assert "the workers were reading: worker 0: " in message
    given_up = time.monotonic() + 5  # it is dead; init must still take notice
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < given_up
        time.sleep(0.05)
    record = json.loads((tmp_path / "stage2_vtt/r/run.json").read_text())
    assert record["end"] == "process lost" and str(worker) in record["said"]


def test_a_summary_leaves_nothing(monkeypatch, capsys, root):
    monkeypatch.chdir(root)
    monkeypatch.setattr("vmm.summary.measure", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    assert main(["summary", "-c", "recipes/stage1_mvp.yaml"]) == 130
    assert capsys.readouterr().err.endswith("vmm: stopped by Ctrl-C\n")
