"""``torch.compile`` for the layers that encoders are made of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
import torch
from torch import nn

from vmm.tasks.zero import ZeroStrategy


class LayerCompiler(L.Callback):
    """Compile the layers of the encoders and of the teacher: what is in a ``ModuleList``.

    Layers that are alike are compiled once, for training, for validation and for every shape of
    batch, when it comes for the first time. Weights keep their names and checkpoints are those of
    a run without. Lightning's own way compiles the whole step, with its words, draws, gathers and
    curves, which are no work for a compiler.

    Measured (``benchmarks/results/compiling_*.md``) for a training step of the encoder on a CPU:
    1.16 times as fast for the demo's, 1.06 for VideoMamba-Ti; not measured on a GPU. The first step
    of each shape took one to two minutes on two busy cores, so a short run on a CPU loses.

    Args:
        backend: ``inductor``, or another name of ``torch.compiler.list_backends``; null = layers
            run as they are written.

    Raises:
        ValueError: If there is no such backend.
    """

    def __init__(self, backend: str | None = None) -> None:
        if backend is not None:
            known: list[str] = torch.compiler.list_backends(())
            if backend not in known:
                raise ValueError(
                    f"compile.backend is {backend!r}; set it to inductor, or null for none "
                    f"(torch also has {', '.join(known)})"
                )
        self.backend = backend

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Mark the layers, for training alone.

        Raises:
            ValueError: If the strategy keeps nothing of a layer's weights while it is compiled.
        """
        if stage != "fit" or self.backend is None:
            return
        strategy = trainer.strategy
        if isinstance(strategy, ZeroStrategy) and strategy.stage == 3:
            raise ValueError(
                f"compile.backend is {self.backend}, and under ZeRO 3 layers have no weights until "
                "they run, so they cannot be compiled; take -c recipes/overlays/fsdp2.yaml, or set "
                "compile.backend to null"
            )
        compile_layers(pl_module, self.backend)


def compile_layers(module: nn.Module, backend: str) -> None:
    """Mark the layers of a module, to be compiled when they first run.

    Args:
        module: With layers in a ``ModuleList``.
        backend: See ``LayerCompiler``.

    Raises:
        ValueError: If there is no compiler.
    """
    if backend == "inductor":
        _refuse_without_compiler()
    import torch._dynamo

    # All kinds of layers count together, each with clips, stills and captions, and validation.
    limit = max(torch._dynamo.config.recompile_limit, 64)
    torch._dynamo.config.recompile_limit = limit
    for parent in [m for m in module.modules() if isinstance(m, nn.ModuleList)]:
        for layer in parent:
            layer.compile(backend=backend)


def _refuse_without_compiler() -> None:
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise ValueError(
            "compile.backend is inductor, which needs a C++ compiler; install g++, name one in the "
            "environment variable CXX, or set compile.backend to null"
        ) from error


@contextmanager
def as_written() -> Iterator[None]:
    """Let compiled layers run as they are written for a while, with the hooks of all modules."""
    if "torch._dynamo" in sys.modules:
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield
