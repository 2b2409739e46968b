from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.losses import test_contrastive as losses
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
    results |= dict(_parts_of_a_batch(index))
    torch.save(results, f"{folder}/{index}.pt")
    dist.destroy_process_group()


_IDX = [4, 4, 1, 2, 4, 6, 2]


def _parts_of_a_batch(index):
    """Contrastive losses and gradients of 3 of 7 rows here and of 4 there, in parts or not."""
    rows = slice(0, 3) if index == 0 else slice(3, 7)
    for loss, pairs in losses.KINDS.items():
        for part in (None, 2):
            mine = {
                n: x.detach()[rows if len(x) == 7 else ...] for n, x in losses.leaves_of(7).items()
            }
            mine = {n: x.clone().requires_grad_() for n, x in mine.items()}
            video, text, temperature, bias = mine.values()
            ids = torch.tensor(_IDX)[rows]
            out = contrastive_loss(video, text, temperature, ids, rows=part, pairs=pairs(bias))
            found = {n: g for n, g in losses.gradients(out.loss, mine).items() if g is not None}
            yield f"{loss} {part}", found | {"loss": out.loss.detach().reshape(())}


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


@pytest.mark.slow
def test_every_process_sees_all_rows_in_rank_order(two_processes):
    for result in two_processes:
        assert result["ranks"] == [{"rank": 0, "world": 2}, {"rank": 1, "world": 2}]
        assert result["gathered"].tolist() == [0, 1, 10, 11]


@pytest.mark.slow
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


@pytest.mark.parametrize("part", [None, 2])
@pytest.mark.parametrize("loss", losses.KINDS)
def test_each_contrastive_loss_is_that_of_one_process(two_processes, loss, part):
    leaves = losses.leaves_of(7)
    expected = losses.written_out(loss, *leaves.values(), _IDX)
    first, second = (result[f"{loss} {part}"] for result in two_processes)
    wanted = {n: g for n, g in losses.gradients(expected, leaves).items() if g is not None}
    assert first.keys() == second.keys() == {*wanted, "loss"}
    for found in (first, second):
        torch.testing.assert_close(found["loss"], expected.reshape(()), rtol=1e-12, atol=1e-12)
    for name, gradient in wanted.items():  # data-parallel training takes the mean of all processes
        rows = name in ("video", "text")
        both = torch.cat([first[name], second[name]]) if rows else first[name] + second[name]
        torch.testing.assert_close(both / 2, gradient, rtol=1e-10, atol=1e-12)
