"""Commands without what Windows lacks; its paths and its locks of open files are not tested."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

WITHOUT = """
import errno, os, signal, sys

# What vmm itself uses. Libraries ask which system they are on, and take what it has.
import torch, multiprocessing.util
import lightning.pytorch.trainer.connectors.signal_connector as lightning_signals

lightning_signals._IS_WINDOWS = True
lightning_signals._SignalConnector._get_current_signal_handlers = staticmethod(dict)

for name in ("SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
for name in ("pread", "uname", "memfd_create", "register_at_fork"):
    delattr(os, name)
for name in ("fcntl", "resource"):
    sys.modules[name] = None
opened = os.open

def open_no_folder(path, flags, *more, **options):
    ours = sys._getframe(1).f_globals["__name__"] == "vmm.portable"
    if ours and os.path.isdir(path):
        raise PermissionError(errno.EACCES, "a folder", str(path))
    return opened(path, flags, *more, **options)

os.open = open_no_folder
sys.modules["msvcrt"] = type(sys)("msvcrt")
sys.modules["msvcrt"].LK_NBLCK = 2
sys.modules["msvcrt"].locking = lambda number, mode, size: os.fstat(number)
from vmm.cli import main

sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def run(root, tmp_path):
    def run(*arguments):
        environment = os.environ | {"PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT, *map(str, arguments)],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    return run


def test_a_run_from_training_to_search(run, demo_shards, tmp_path):
    logger = "--trainer.logger.init_args"
    short = ["--data.init_args.steps_per_epoch=2", "--data.init_args.batch_size=4"]
    short += ["--data.init_args.image_batch_size=4", "--data.init_args.num_workers=0"]
    short += ["--trainer.val_check_interval=1.0"]
    where = [f"{logger}.save_dir={tmp_path}", f"{logger}.name=runs", f"{logger}.version=a"]
    run("fit", "-c", "recipes/stage2_vtt.yaml", *demo_shards.options(), *short, *where)
    trained = tmp_path / "runs/a"
    assert (trained / "checkpoints/last.ckpt").exists() and (trained / "report.html").exists()
    run("export", trained, tmp_path / "encoder")
    shard = demo_shards.folder / "test-000000.tar"
    run("eval", "retrieval", "--run", trained, "--shards", shard, "--out", tmp_path / "measured")
    run("encode", shard, "-o", tmp_path / "index", "--encoder", tmp_path / "encoder")
    found = run("search", tmp_path / "index", "a red circle moves", "--top", "3", "--json")
    assert found.count('"similarity"') == 3 or found.count('"score"') == 3, found
