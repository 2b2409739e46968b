"""Every strategy trains two processes as one, and goes on from what another one has saved."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml

pytest.importorskip("deepspeed", reason="DeepSpeed is for Linux only")
pytestmark = pytest.mark.slow

ZERO = "--trainer.strategy.init_args.offload"
PARTS = "--model.init_args.micro_batch=2"
EXACT = ["--trainer.precision=64-true", "--ema.decay=0.5"]
LORA = "--model.init_args.lora.rank=4"
RUNS = {
    "one": ([], None),
    "exact": (EXACT, None),
    "exact ddp": (["ddp", *EXACT, "--compile.backend=eager"], None),
    "fsdp2": (["fsdp2"], None),
    "zero2": (["zero2"], None),
    "ddp": (["ddp"], "one/1"),
    "zero3": (["zero3", f"{ZERO}_optimizer=true", f"{ZERO}_parameters=true", PARTS], "fsdp2/1"),
    "hsdp": (["hsdp", "--trainer.strategy.init_args.copies=2", PARTS], "zero2/1"),
    "zero1": (["zero1", f"{ZERO}_optimizer=true"], "zero3/2"),
    "lora": ([LORA], None),
    "lora fsdp2": (["fsdp2", LORA], None),
    "lora zero3": (["zero3", LORA], "lora fsdp2/1"),
}
"""Overlay and options, and the checkpoint of another run that it begins with."""

ONE = ("one", "exact", "lora")
TWO = [name for name in RUNS if name not in ONE]


def alone(strategy):
    """The run of one process to compare with, and how far loss terms and gradients may be apart."""
    if strategy.startswith("exact"):  # only the order of sums differs, and float64 hides it
        return "exact", 1e-14, 1e-12
    return "lora" if strategy.startswith("lora") else "one", 2e-6, 1e-5


@pytest.fixture(scope="module")
def fit(root, demo_shards, tmp_path_factory):
    """Train three steps, of one process with batches of eight or two with batches of four."""
    folder = tmp_path_factory.mktemp("strategies")
    bert = folder / "bert"
    bert.mkdir()
    for file in (root / "recipes/encoders/bert_demo").iterdir():
        (bert / file.name).write_bytes(file.read_bytes())
    config = json.loads((bert / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (bert / "config.json").write_text(json.dumps(config))

    from vmm.models.clip_tower import build_visual

    torch.manual_seed(0)
    tower = "recipes/encoders/clip_vit_demo.json"
    torch.save(build_visual(str(root / tower), 64).state_dict(), folder / "teacher.pt")
    teacher = {"name": tower, "pretrained": str(folder / "teacher.pt"), "image_size": 64}
    arguments = {
        "loss_weights": {"vtc": 1.0, "vtm": 1.0, "mlm": 1.0, "align": 1.0},
        "teacher": {"class_path": "vmm.models.clip_vit.ClipTeacher", "init_args": teacher},
        "video_mask": {"kind": "attention", "ratio": 0.8},
        "image_mask": {"kind": "attention", "ratio": 0.5},
    }
    (folder / "all.yaml").write_text(yaml.safe_dump({"model": {"init_args": arguments}}))

    def run(name, *options, status=0):
        out = folder / name
        out.mkdir()
        two = any("overlays" in option for option in options)
        command = [
            *(sys.executable, "-m", "vmm", "fit", "-c", "recipes/stage2_vtt.yaml"),
            *("-c", "recipes/overlays/debug.yaml", "-c", str(folder / "all.yaml")),
            *demo_shards.options(),
            "--data.init_args.steps_per_epoch=3",
            f"--data.init_args.batch_size={4 if two else 8}",
            f"--data.init_args.image_batch_size={4 if two else 8}",
            f"--model.init_args.text_encoder.init_args.name={bert}",
            "--trainer.num_sanity_val_steps=0",
            "--trainer.enable_progress_bar=false",
            f"--trainer.logger.init_args.save_dir={out}",
            "--trainer.logger.init_args.version=run",
            *options,
            *("--trainer.accelerator=cpu", f"--trainer.devices={2 if two else 1}"),
        ]
        compiled = folder / "compiled"
        own = {"NOTES": str(out), "GROUP": "4", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
        own["TORCH_EXTENSIONS_DIR"] = str(compiled)
        result = subprocess.run(
            command, cwd=root, env=os.environ | own, capture_output=True, text=True, timeout=300
        )
        assert result.returncode == status, result.stderr[-3000:]
        assert not compiled.exists(), "nobody waits for a compiler"
        return out

    return run


@pytest.fixture(scope="module")
def run(fit):
    """The folder of a run of ``RUNS``, which is done once."""
    done = {}

    def get(name):
        if name not in done:
            overlay, start = RUNS[name]
            options = [
                *(f"-crecipes/overlays/{o}.yaml" if o.isalnum() else o for o in overlay),
                "--trainer.callbacks+=tests.integration.onlookers.NoteGradients",
            ]
            if start is not None:
                source, _, step = start.partition("/")
                options.append(f"--ckpt_path={get(source) / step}.ckpt")
            done[name] = fit(name, *options)
        return done[name]

    return get


def checkpoint(folder):
    return torch.load(folder / "stage2_vtt/run/checkpoints/last.ckpt", weights_only=True)


def apart(one, other):
    """The largest difference, as a share of the largest number, or of 0.1 where all are small."""
    return ((one - other).abs().max() / one.abs().max().clamp(min=0.1)).item()


@pytest.mark.parametrize("strategy", TWO)
def test_losses_and_gradients_are_those_of_one_process(run, strategy):
    """Of all terms and parameters, with a last batch that is smaller on one process."""
    name, near, nearly = alone(strategy)
    one = torch.load(run(name) / "gradients.pt")
    two = torch.load(run(strategy) / "gradients.pt")
    assert 1 <= len(two) <= len(one) == 3
    for expected, got in zip(one[-len(two) :], two, strict=True):
        assert expected.keys() == got.keys()
        terms = {name for name in expected if name.startswith("train/")}
        assert terms >= {f"train/{term}" for term in ("loss", "vtc", "vtm", "mlm", "align")}
        for name, value in expected.items():
            if value is None:
                frozen = name.startswith("teacher.") or (
                    strategy.startswith("lora") and "encoder." in name
                )
                assert got[name] is None and frozen and ".lora_" not in name
            else:
                assert apart(value, got[name]) < (near if name in terms else nearly), name


@pytest.mark.parametrize("strategy", TWO)
def test_all_end_with_the_same_checkpoint(run, strategy):
    """Whatever wrote the one that they began with: weights, moments and groups, no teacher."""
    name = alone(strategy)[0]
    one, two = checkpoint(run(name)), checkpoint(run(strategy))
    assert one.keys() == two.keys()
    assert ("current_model_state" in one) == (name == "exact")
    for part in {"state_dict", "current_model_state"} & one.keys():
        assert one[part].keys() == two[part].keys()
        assert not any(name.startswith("teacher.") for name in two[part])
        for key, value in one[part].items():
            near = 1e-10 if name == "exact" else 2e-5
            torch.testing.assert_close(two[part][key], value, rtol=0, atol=near)
    (moments,), (others,) = one["optimizer_states"], two["optimizer_states"]
    assert moments["param_groups"] == others["param_groups"]
    assert moments["state"].keys() == others["state"].keys()
    for number, entry in moments["state"].items():
        assert entry.keys() == others["state"][number].keys()
        for name, value in entry.items():
            torch.testing.assert_close(others["state"][number][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("strategy", ["fsdp2", "zero2"])
def test_bad_numbers_are_left_out_and_a_signal_ends_all_processes(fit, strategy):
    out = fit(
        f"faults-{strategy}",
        f"-crecipes/overlays/{strategy}.yaml",
        "--trainer.callbacks+=tests.integration.onlookers.SpoilThenSignal",
        "--data.init_args.steps_per_epoch=100",
        status=75,
    )
    lines = (out / "stage2_vtt/run/bad_steps.jsonl").read_text().splitlines()
    found = {(line["step"], line["process"]): line for line in map(json.loads, lines)}
    what = {key: line["not_finite"] for key, line in found.items()}
    both = {(2, 0): "gradient", (2, 1): "gradient"}
    assert what == {(1, 0): "gradient", (1, 1): "loss"} | both
    assert all(found[key]["first"].startswith("the gradient of model.v") for key in both)
    state = checkpoint(out)
    assert state["global_step"] == 4
    assert all(bool(w.isfinite().all()) for w in state["state_dict"].values())
    (optimizer,) = state["optimizer_states"]
    assert {float(entry["step"]) for entry in optimizer["state"].values()} == {2.0}
