from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vmm.distributed import all_gather, gather_objects, rank, world_size
from vmm.losses.contrastive import contrastive_loss

WORLD = 2
KINDS = ("exact", "local", "none")


class Towers(nn.Module):
    """Two projections and a temperature: the part of the model that the loss reaches."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.video = nn.Linear(5, 4)
        self.text = nn.Linear(3, 4)
        self.temperature = nn.Parameter(torch.tensor(0.3))

    def forward(self, video, text, idx, gather):
        output = contrastive_loss(self.video(video), self.text(text), self.temperature, idx, gather)
        return output.loss


def _batch():
    g = torch.Generator().manual_seed(1)
    video, text = torch.randn(6, 2, 5, generator=g), torch.randn(6, 3, generator=g)
    return video, text, torch.tensor([0, 1, 2, 0, 3, 4])  # rows 0 and 3 live on different ranks


def _process(index, folder):
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/init",
        rank=index,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    results = {"ranks": gather_objects({"rank": rank(), "world": world_size()})}
    mine = torch.arange(2) + 10 * index
    results["gathered"] = all_gather(mine, "none")
    for kind in KINDS:
        model = DistributedDataParallel(Towers())
        model(*(x.chunk(WORLD)[index] for x in _batch()), kind).backward()
        results[kind] = {name: p.grad for name, p in model.module.named_parameters()}
    torch.save(results, f"{folder}/{index}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    mp.spawn(_process, args=(folder,), nprocs=WORLD)
    return [torch.load(folder / f"{i}.pt", weights_only=True) for i in range(WORLD)]


@pytest.fixture(scope="module")
def one_process():
    model = Towers()
    model(*_batch(), "exact").backward()
    return {name: p.grad for name, p in model.named_parameters()}


def test_every_process_sees_all_rows_in_rank_order(two_processes):
    for result in two_processes:
        assert result["ranks"] == [{"rank": 0, "world": 2}, {"rank": 1, "world": 2}]
        assert result["gathered"].tolist() == [0, 1, 10, 11]


def test_exact_equals_one_process_on_the_whole_batch(two_processes, one_process):
    for result in two_processes:
        torch.testing.assert_close(result["exact"], one_process)


def test_local_scales_the_towers_by_one_over_world_but_not_the_temperature(
    two_processes, one_process
):
    for result in two_processes:
        for name, grad in one_process.items():
            scale = 1 if name == "temperature" else 1 / WORLD
            torch.testing.assert_close(result["local"][name], grad * scale)


def test_none_gives_the_towers_no_gradient(two_processes, one_process):
    grads = dict(two_processes[0]["none"])
    torch.testing.assert_close(grads.pop("temperature"), one_process["temperature"])
    assert all(grad is None or not grad.any() for grad in grads.values())


def test_a_single_process_is_left_alone():
    x = torch.randn(3, requires_grad=True)
    assert all_gather(x, "exact") is x
    assert all_gather(x, "local") is x
    assert not all_gather(x, "none").requires_grad
    assert (rank(), world_size(), gather_objects("a")) == (0, 1, ["a"])
