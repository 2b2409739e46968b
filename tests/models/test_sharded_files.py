import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp

from vmm.models.sharded_files import is_sharded
from vmm.models.weight_files import read_state_dict

STATE = {
    "model.layer.weight": torch.arange(15.0).view(3, 5),
    "model.layer.bias": torch.arange(4.0),
    "model.temperature": torch.tensor([0.5]),
    "model.table": torch.tensor([1, 2]),
}
FROZEN = {"model.frozen": torch.arange(7.0)}


def by_torch(folder):
    """As Lightning's ModelParallelStrategy saves it."""
    moments = {"state": {"x": {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1.0}]}
    content = {"state_dict": STATE | FROZEN, "optimizer_0": moments}
    dcp.save(content, checkpoint_id=folder, no_dist=True)
    torch.save({"global_step": 3}, folder / "meta.pt")


def by_zero2(folder):
    """As Lightning's DeepSpeedStrategy saves it below stage 3."""
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "latest").write_text("checkpoint")
    module = {f"_forward_module.{key}": value for key, value in (STATE | FROZEN).items()}
    torch.save({"module": module}, folder / "checkpoint/mp_rank_00_model_states.pt")


def by_zero3(folder, processes=2):
    """The same in stage 3: each process has a part of each parameter, padded."""
    (folder / "checkpoint").mkdir(parents=True)

    def part(value, rank):
        own = -(-value.numel() // processes)
        padded = torch.nn.functional.pad(value.flatten(), (0, own * processes - value.numel()))
        return padded[rank * own : (rank + 1) * own]

    trained = {key: value for key, value in STATE.items() if value.is_floating_point()}
    for rank in range(processes):
        name = f"checkpoint/zero_pp_rank_{rank}_mp_rank_00"
        model = {
            "module": {"model.table": STATE["model.table"]},
            "buffer_names": ["model.table"],
            "param_shapes": [{key: value.shape for key, value in trained.items()}],
            "frozen_param_shapes": {key: value.shape for key, value in FROZEN.items()},
            "frozen_param_fragments": {key: part(value, rank) for key, value in FROZEN.items()},
        }
        torch.save(model, folder / f"{name}_model_states.pt")
        flat = torch.cat([part(value, rank) for value in trained.values()])
        optimizer = {"optimizer_state_dict": {"fp32_flat_groups": [flat]}}
        torch.save(optimizer, folder / f"{name}_optim_states.pt")


@pytest.fixture(params=[by_torch, by_zero2, by_zero3])
def folder(request, tmp_path):
    path = tmp_path / "last.ckpt"
    request.param(path)
    return path


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_the_weights_of_a_folder_are_put_together(folder):
    assert is_sharded(folder) and not is_sharded(folder.parent)
    state = read_state_dict(folder)
    assert state.keys() == (STATE | FROZEN).keys()
    for key, value in (STATE | FROZEN).items():
        assert torch.equal(state[key], value), key


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_folder_with_a_part_missing_is_refused(folder):
    parts = sorted(file for file in folder.rglob("*") if file.suffix in (".pt", ".distcp"))
    (first, *_) = [file for file in parts if file.name != "meta.pt"]
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"damaged|stores fewer"):
        read_state_dict(folder)
    last = parts[-1] if parts[-1].name != "meta.pt" else first
    last.unlink()
    with pytest.raises(ValueError, match=r"missing|damaged|folder"):
        read_state_dict(folder)


def test_code_in_the_description_of_a_folder_is_not_run(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    by_torch(tmp_path / "folder")
    (tmp_path / "folder/.metadata").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ValueError, match="would run code of"):
        read_state_dict(tmp_path / "folder")
    assert not (tmp_path / "sprung").exists()
