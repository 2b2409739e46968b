"""Runs of ``vmm fit`` in processes of their own, watched from outside."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import torch

ROOT = Path(__file__).parents[2]
LOG = "STRESS_LOG"


class Watcher(L.Callback):
    """Write a line for each step into ``$STRESS_LOG-RANK``: its samples and all weights' digest."""

    def on_fit_start(self, trainer, pl_module):
        self.path = Path(f"{os.environ[LOG]}-{trainer.global_rank}")
        Path(f"{self.path}.pid").write_text(str(os.getpid()))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        digest = hashlib.blake2b(digest_size=8)
        for weight in pl_module.parameters():
            digest.update(weight.detach().flatten().view(torch.uint8).numpy())
        line = {
            "batch": trainer.fit_loop.epoch_loop.batch_progress.total.ready,
            "keys": batch["key"],
            "weights": digest.hexdigest(),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


class Fit:
    """A run of some processes in a session of its own.

    Args:
        folder: Where it writes; the run is ``folder/stage2_vtt/NAME``.
        name: Of the run.
        options: Of ``vmm fit``, which come last and win.
        ranks: Processes; together they have eight samples in a batch.
        log: Name of its log, if not the run's.
        torchrun: Start them by torchrun.
    """

    def __init__(self, folder, name, *options, ranks=1, log=None, torchrun=False):
        self.run, self.ranks = folder / "stage2_vtt" / name, ranks
        self.log = folder / f"{log or name}.log"
        self.output = folder / f"{log or name}.txt"
        overlay = ["-c", "recipes/overlays/ddp.yaml"] if ranks > 1 else []
        launcher = ["torch.distributed.run", f"--nproc-per-node={ranks}", "-m"] if torchrun else []
        command = [
            *(
                sys.executable,
                "-m",
                *launcher,
                "vmm",
                "fit",
                "-c",
                "recipes/stage2_vtt.yaml",
                *overlay,
            ),
            *("--trainer.accelerator=cpu", f"--trainer.devices={ranks}"),
            *(f"--data.init_args.batch_size={8 // ranks}", "--data.init_args.num_workers=0"),
            f"--data.init_args.image_batch_size={8 // ranks}",
            *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
            "--trainer.callbacks+=tests.stress.fits.Watcher",
            f"--trainer.logger.init_args.save_dir={folder}",
            f"--trainer.logger.init_args.version={name}",
            *options,
        ]
        folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"PYTHONPATH": str(ROOT), LOG: str(self.log)}
        with socket.create_server(("127.0.0.1", 0)) as free:
            environment["MASTER_PORT"] = str(free.getsockname()[1])
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment | {"OMP_NUM_THREADS": "1"},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pid(self, rank):
        """Of one of its processes, which it writes when fitting begins."""
        return int(Path(f"{self.log}-{rank}.pid").read_text())

    def lines(self, rank=0):
        """What the watcher of a process wrote; the last line may be cut by a kill."""
        path = Path(f"{self.log}-{rank}")
        whole = path.read_text().rpartition("\n")[0] if path.is_file() else ""
        return [json.loads(line) for line in whole.splitlines()]

    def steps(self):
        """Batch -> its samples, on all processes, and the digest of the weights after it."""
        ranks = [{line["batch"]: line for line in self.lines(rank)} for rank in range(self.ranks)]
        shared = sorted(set.intersection(*(set(rank) for rank in ranks)))
        return {
            batch: ([k for rank in ranks for k in rank[batch]["keys"]], ranks[0][batch]["weights"])
            for batch in shared
        }

    def until(self, batch, timeout=240):
        """Wait until all processes have done a batch; a run that ends before is an error."""
        end = time.monotonic() + timeout
        while any(not s or s[-1]["batch"] < batch for s in map(self.lines, range(self.ranks))):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"it did not come so far:\n{self.output.read_text()[-3000:]}")
            time.sleep(0.02)

    def wait(self, timeout=240):
        """Give its status; None if it did not end in time, and then it is killed."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def living(self):
        """List the processes of its session, and of those of its ranks, that live."""
        sessions = {self.process.pid}
        pids = self.log.parent.glob(f"{self.log.name}-?.pid")  # torchrun gives each a session
        sessions |= {int(path.read_text()) for path in pids}
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) in sessions and fields[0] != "Z":
                found.append(int(path.parent.name))
        return found

    def kill(self):
        """SIGKILL to all of its processes."""
        for pid in self.living():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
