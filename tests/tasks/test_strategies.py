from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch

from vmm.tasks.sharding import ShardedStrategy
from vmm.tasks.strategies import check_machines, check_strategy, not_met


@pytest.mark.parametrize(
    "good",
    [
        "auto",
        "ddp",
        "ddp_find_unused_parameters_true",
        {"class_path": "lightning.pytorch.strategies.DDPStrategy", "init_args": {"timeout": None}},
        {"class_path": "vmm.tasks.sharding.ShardedStrategy"},
        {"class_path": "vmm.tasks.zero.ZeroStrategy", "init_args": {"stage": 3}},
    ],
)
def test_strategies_that_train_as_one_process_are_taken(good):
    check_strategy(good)


LIGHTNING = "lightning.pytorch.strategies"


@pytest.mark.parametrize(
    ("bad", "instead"),
    [
        ("fsdp", "overlays/fsdp2.yaml"),
        ("fsdp_cpu_offload", "overlays/fsdp2.yaml"),
        ({"class_path": f"{LIGHTNING}.FSDPStrategy"}, "overlays/fsdp2.yaml"),
        ({"class_path": f"{LIGHTNING}.ModelParallelStrategy"}, "overlays/fsdp2.yaml"),
        ("deepspeed", "overlays/zero2.yaml"),
        ("deepspeed_stage_1", "overlays/zero1.yaml"),
        ("deepspeed_stage_3_offload", "overlays/zero3.yaml"),
        ({"class_path": f"{LIGHTNING}.DeepSpeedStrategy"}, "overlays/zero2.yaml"),
        ({"class_path": "mine.DDPStrategy"}, "overlays/ddp.yaml"),
        ("ddp_spawn", "overlays/ddp.yaml"),
        ("ddp_notebook", "overlays/ddp.yaml"),
        ("xla", "overlays/ddp.yaml"),
        (
            {"class_path": f"{LIGHTNING}.DDPStrategy", "init_args": {"start_method": "fork"}},
            "start_method is 'fork'",
        ),
        (
            {"class_path": f"{LIGHTNING}.DDPStrategy", "init_args": {"model_averaging_period": 4}},
            "model_averaging_period is 4",
        ),
    ],
)
def test_others_are_refused_with_what_to_take(bad, instead):
    with pytest.raises(ValueError, match=instead):
        check_strategy(bad)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stage": 0}, "stage is 0; set it to 1, 2 or 3"),
        ({"stage": 2, "offload_parameters": True}, "offload_parameters needs stage 3"),
    ],
)
def test_settings_of_zero_that_mean_nothing_are_refused(settings, said):
    from vmm.tasks.zero import ZeroStrategy

    with pytest.raises(ValueError, match=said):
        ZeroStrategy(**settings)


def test_deepspeed_that_is_not_there_is_named(monkeypatch):
    from vmm.tasks import zero

    monkeypatch.setattr(zero, "_DEEPSPEED_AVAILABLE", False)
    with pytest.raises(ValueError, match=r'pip install "vmm-video\[deepspeed\]"'):
        zero.ZeroStrategy()


def test_zero_refuses_an_optimizer_that_looks_at_whole_parameters():
    pytest.importorskip("deepspeed")
    from vmm.tasks.zero import ZeroStrategy

    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adafactor(layer.parameters())
    with pytest.raises(ValueError, match="Adafactor would make other steps; take AdamW"):
        ZeroStrategy()._setup_model_and_optimizer(layer, optimizer)


def test_copies_must_divide_the_processes(monkeypatch):
    with pytest.raises(ValueError, match="copies is 0"):
        ShardedStrategy(copies=0)
    strategy = ShardedStrategy(copies=3)
    monkeypatch.setattr(ShardedStrategy, "_setup_distributed", lambda self: None)
    strategy._cluster_environment = SimpleNamespace(world_size=lambda: 4)
    monkeypatch.setattr(ShardedStrategy, "world_size", property(lambda self: 4))
    with pytest.raises(ValueError, match="copies is 3, which does not divide 4"):
        strategy.setup_environment()


BY_HAND = {"NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "2950"}


def test_several_machines_need_something_that_started_them(monkeypatch, caplog):
    check_machines(1, [])
    with pytest.raises(ValueError, match=r"num_nodes is 2, .* by srun or torchrun"):
        check_machines(2, [])
    for name, value in BY_HAND.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level("INFO", "vmm"):
        check_machines(2, [])
    assert "machine 1, the first is 0; waiting for others at 127.0.0.1:2950" in caplog.text
    monkeypatch.delenv("NODE_RANK")
    with pytest.raises(ValueError, match="num_nodes is 2"):
        check_machines(2, [])
    check_machines(2, [{"class_path": "mine.ClusterEnvironment"}])


def test_torchrun_starts_several_machines(monkeypatch):
    for name in ("RANK", "GROUP_RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "0")
    check_machines(2, [])


def test_machines_that_do_not_come_are_a_sentence():
    with pytest.raises(RuntimeError) as caught:
        torch.distributed.TCPStore("127.0.0.1", 0, 2, True, timeout=timedelta(seconds=1))
    assert "did not find each other" in not_met(caught.value)
    assert not not_met(RuntimeError("something else"))
