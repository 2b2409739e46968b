"""Two processes on the CPU: ends, bad numbers and draws; ``test_strategies`` compares with one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

STEPS = 3


@pytest.fixture(scope="module")
def bert_without_dropout(tmp_path_factory, root):
    source = root / "recipes/encoders/bert_demo"
    folder = tmp_path_factory.mktemp("bert")
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def train(root, demo_shards, bert, out, *options):
    command = [
        *(sys.executable, "-m", "vmm", "fit", "-c", "recipes/stage2_vtt.yaml"),
        *("-c", "recipes/overlays/debug.yaml"),
        *demo_shards.options(),
        f"--data.init_args.steps_per_epoch={STEPS}",
        f"--model.init_args.text_encoder.init_args.name={bert}",
        # Matching and word masks draw at random on each process; the contrastive loss does not.
        "--model.init_args.loss_weights.vtm=0",
        "--model.init_args.loss_weights.mlm=0",
        "--trainer.accelerator=cpu",
        f"--trainer.logger.init_args.save_dir={out}",
        "--trainer.logger.init_args.version=run",
        *options,
    ]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return torch.load(out / "stage2_vtt/run/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def start_two(root, demo_shards, folder, *options):
    """Start a long run of two processes; give it, their pids, and what it says."""
    command = [
        *(sys.executable, "-m", "vmm", "fit", "-c", "recipes/stage2_vtt.yaml"),
        *("-c", "recipes/overlays/debug.yaml", "-c", "recipes/overlays/ddp.yaml"),
        *demo_shards.options(),
        *("--trainer.accelerator=cpu", "--trainer.devices=2"),
        "--data.init_args.steps_per_epoch=2000",
        "--trainer.num_sanity_val_steps=0",
        "--trainer.callbacks+=tests.integration.onlookers.WritePid",
        f"--trainer.logger.init_args.save_dir={folder}",
        "--trainer.logger.init_args.version=run",
        *options,
    ]
    environment = os.environ | {"PYTHONPATH": str(root), "PID_FOLDER": str(folder)}
    said = folder / "said"
    with said.open("w") as file:
        process = subprocess.Popen(
            command, cwd=root, env=environment, start_new_session=True, stderr=file
        )
    files = [folder / f"pid-{rank}" for rank in (0, 1)]
    while process.poll() is None and not all(file.exists() for file in files):
        time.sleep(0.05)
    assert process.poll() is None, said.read_text()[-3000:]
    return process, [int(file.read_text()) for file in files], said


def wait_for_end(pid):
    """Fail if a process is there in half a minute."""
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(300):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.1)
    raise AssertionError(f"{pid} is still there")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to", "status"),
    [(signal.SIGTERM, 0, 75), (signal.SIGTERM, 1, 75), (signal.SIGINT, 0, 130)],
)
def test_a_signal_to_one_process_ends_both_after_the_same_step(
    root, demo_shards, tmp_path, number, to, status
):
    slow = "--trainer.callbacks+=tests.integration.onlookers.SlowEnd"
    process, pids, _ = start_two(root, demo_shards, tmp_path, slow)
    try:
        os.kill(pids[to], number)
        assert process.wait(timeout=60) == status
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    assert (tmp_path / "stage2_vtt/run/report.html").is_file()
    state = torch.load(tmp_path / "stage2_vtt/run/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] >= 3
    wait_for_end(pids[1])


@pytest.mark.slow
def test_a_process_that_ends_is_named_whatever_the_others_do(root, demo_shards, tmp_path):
    options = "--trainer.callbacks+=tests.integration.onlookers.EndOne", "--watchdog.silence=20"
    process, pids, said = start_two(root, demo_shards, tmp_path, *options)
    try:
        assert process.wait(timeout=35) == 69
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    message = f"process 1 of 2 has ended with status 7 (pid {pids[1]} on "
    assert message in said.read_text()
    record = json.loads((tmp_path / "stage2_vtt/run/run.json").read_text())
    assert record["status"] == 69 and message in record["said"]
    assert re.search(r"it was at (the batch for )?step \d", record["said"])  # by its last sign


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to"), [(signal.SIGKILL, 1), (signal.SIGSTOP, 1), (signal.SIGSTOP, 0)]
)
def test_a_lost_process_is_named_and_ends_the_run(root, demo_shards, tmp_path, number, to):
    process, pids, said = start_two(root, demo_shards, tmp_path, "--watchdog.silence=4")
    try:
        os.kill(pids[to], number)
        if number == signal.SIGSTOP and to == 0:  # whoever started it sees it killed in the end
            assert process.wait(timeout=60) == -signal.SIGKILL
        else:
            assert process.wait(timeout=60) == 69
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    wait_for_end(pids[1 - to])
    message = said.read_text()
    assert f"process {to} of 2 " in message and f"(pid {pids[to]} on " in message
    assert re.search(r"it was at (the batch for )?step \d+", message), message[-2000:]
    if to == 1:
        record = json.loads((tmp_path / "stage2_vtt/run/run.json").read_text())
        assert (record["end"], record["status"]) == ("process lost", 69)
        assert f"process {to} of 2 " in record["said"]


@pytest.mark.slow
def test_a_bad_gradient_of_one_process_is_left_out_by_both(
    root, demo_shards, bert_without_dropout, tmp_path
):
    weights = train(
        *(root, demo_shards, bert_without_dropout, tmp_path),
        *("-c", "recipes/overlays/ddp.yaml", "--trainer.devices=2"),
        "--trainer.callbacks+=tests.integration.onlookers.SpoilGradient",
    )
    assert all(bool(w.isfinite().all()) for w in weights.values() if w.is_floating_point())
    (line,) = (tmp_path / "stage2_vtt/run/bad_steps.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert (found["step"], found["process"], found["not_finite"]) == (1, 1, "gradient")
    assert len(found["samples"]) == 4


@pytest.mark.slow
def test_draws_are_those_of_the_sample_when_another_number_of_processes_goes_on(
    root, demo_shards, bert_without_dropout, tmp_path
):
    def go(folder, *options):
        train(
            *(root, demo_shards, bert_without_dropout, tmp_path / folder),
            *("--model.init_args.loss_weights.mlm=1", "--model.init_args.video_mask.kind=random"),
            *("--model.init_args.image_mask.kind=tube", "--checkpoint.every_n_train_steps=1"),
            *("--checkpoint.save_top_k=-1", "--checkpoint.monitor=null"),
            "--trainer.callbacks+=tests.integration.onlookers.NoteDraws",
            *options,
        )
        run = tmp_path / folder / "stage2_vtt/run"
        lines = [line for f in run.glob("draws-*") for line in f.read_text().splitlines()]
        assert len(set(lines)) == len(lines)
        return set(lines), run

    on_two, run = go("two", "-c", "recipes/overlays/ddp.yaml", "--trainer.devices=2")
    (first,) = run.glob("checkpoints/*step=1*")
    batch = ("--data.init_args.batch_size=8", "--data.init_args.image_batch_size=8")
    on_one, _ = go("one", f"--ckpt_path={first}", *batch)
    later = {line for line in on_two if json.loads(line)[0] >= 1}
    assert len(later) == 2 * (STEPS - 1) * 8
    assert on_one == later
