"""Image models of transformers as teachers: ViT, DINOv2 and DINOv3, SigLIP's and CLIP's towers.

Shape legend: see ``vmm.models.teacher``.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from torch import Tensor, nn

from vmm.models.library_files import (
    build_library_model,
    load_library_model,
    read_configuration,
    read_json,
)
from vmm.models.teacher import (
    FrameTeacher,
    Saliency,
    Seen,
    Statistics,
    Triple,
    saliency_of,
    say_random,
    statistics_of,
)

FAMILIES = {
    "vit": True,
    "dinov2": True,
    "dinov2_with_registers": True,
    "dinov3_vit": True,
    "clip_vision_model": True,
    "siglip_vision_model": False,
}
"""What transformers calls models that are known to work; whether they have a class token."""

_WHAT = "teacher"
_NORMS = ("layernorm", "post_layernorm", "norm")
"""What the libraries' final norms are called."""


class LibraryTeacher(FrameTeacher):
    """Frozen Vision Transformer of transformers; its tokens are the layers' outputs.

    Args:
        name: Hub name or local folder (``config.json``, weights, ``preprocessor_config.json``);
            of a model of images and texts the image tower is taken.
        pretrained: Whether to load its weights; if not, the tower is random, for smoke runs.
        image_size: See ``FrameTeacher``; None = the model's own.
        num_layers: See ``FrameTeacher``.
        layer_interval: See ``FrameTeacher``.
        final_norm: See ``FrameTeacher``.
        saliency: See ``FrameTeacher``.
        mean: See ``FrameTeacher``.
        std: See ``FrameTeacher``.

    Raises:
        ValueError: If the configuration cannot be read or is not of ``FAMILIES``.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = True,
        image_size: int | None = None,
        num_layers: int = 1,
        layer_interval: int = 1,
        final_norm: bool = True,
        saliency: Saliency | None = None,
        mean: Triple | None = None,
        std: Triple | None = None,
    ) -> None:
        config = read_configuration(name, _WHAT)
        self.config = getattr(config, "vision_config", config)
        if self.config.model_type not in FAMILIES:
            raise ValueError(
                f"teacher {name!r} is of type {self.config.model_type!r}; choose one of "
                f"{', '.join(FAMILIES)}"
            )
        size = int(self.config.image_size) if image_size is None else image_size
        super().__init__(
            *(name, pretrained, size, num_layers, layer_interval, final_norm, saliency, mean, std)
        )
        if self.image_size % self.config.patch_size:
            raise ValueError(
                f"image_size {self.image_size} does not divide into patches of "
                f"{self.config.patch_size}, which teacher {name} has"
            )
        self.tower: Any = None
        self.check()

    @property
    def output_dim(self) -> int:
        """Width of the tower."""
        return int(self.config.hidden_size)

    @property
    def depth(self) -> int:
        """Number of its layers."""
        return int(self.config.num_hidden_layers)

    @property
    def class_token(self) -> bool:
        """Whether it has one."""
        return FAMILIES[self.config.model_type]

    def own_statistics(self) -> Statistics | None:
        """What the model's preprocessor says."""
        said = read_json(self.name, "preprocessor_config.json")
        mean, std = said.get("image_mean"), said.get("image_std")
        return statistics_of(mean, std) if mean and std else None

    def build(self) -> None:
        """Build the tower; see ``Teacher``."""
        self._take(build_library_model(self.config, f"{_WHAT} {self.name!r}"))

    def load(self) -> None:
        """Build the tower and load its weights.

        Raises:
            ValueError: If there are none, or they do not fit.
        """
        if self.pretrained:
            self._take(load_library_model(self.name, self.config, _WHAT))
        else:
            say_random(self.name)
            self.build()

    def _take(self, tower: nn.Module) -> None:
        """Keep a tower, and let its last layer say where it looks if that is asked."""
        self.tower = tower
        if self.saliency is not None:  # the other kernels do not tell
            watched: Any = self._attention()
            watched.config = copy(watched.config)
            watched.config._attn_implementation = "eager"
        self.ready()

    def look(self, frames: Tensor) -> Seen:
        """See ``FrameTeacher``."""
        outputs: dict[int, Tensor] = {}
        attention: list[Tensor] = []
        layers = self._layers()

        def keep(number: int) -> Any:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                outputs[number] = output[0] if isinstance(output, tuple) else output

            return hook

        hooks = [layers[i].register_forward_hook(keep(i)) for i in self.layers]
        if self.saliency is not None:
            see = self._attention().register_forward_hook
            hooks.append(see(lambda module, inputs, output: attention.append(output[1])))
        other = self.image_size != self.config.image_size
        try:
            self.tower(frames, **({"interpolate_pos_encoding": True} if other else {}))
        finally:
            for hook in hooks:
                hook.remove()
        norm = next(getattr(self.tower, name) for name in _NORMS if hasattr(self.tower, name))
        tokens = [norm(outputs[i]) if self.final_norm else outputs[i] for i in self.layers]
        count = (self.image_size // self.config.patch_size) ** 2
        patches = [x[:, -count:] for x in tokens]
        first = [x[:, 0] for x in tokens] if self.class_token else None
        if self.saliency is None:
            return Seen(patches, first, None)
        return Seen(patches, first, saliency_of(attention[0], self.saliency, count))

    def _layers(self) -> nn.ModuleList:
        lists = (m for m in self.tower.modules() if isinstance(m, nn.ModuleList))
        return next(m for m in lists if len(m) == self.depth)

    def _attention(self) -> nn.Module:
        last = self._layers()[-1].modules()
        return next(m for m in last if type(m).__name__.endswith("Attention"))
