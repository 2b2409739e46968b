"""vmm: train, evaluate and use VideoMamba-style video-text encoders."""

from __future__ import annotations

from vmm.version import __version__ as __version__

TYPE_CHECKING = False  # typing's own would load typing before vmm minds Ctrl-C
if TYPE_CHECKING:
    from typing import Any

    from vmm.export.classifier import ActionClassifier as ActionClassifier
    from vmm.export.encoder import VideoTextEncoder as VideoTextEncoder


def __getattr__(name: str) -> Any:
    """Import a class, and with it torch and transformers, when it is asked for."""
    if name in ("VideoTextEncoder", "ActionClassifier"):
        import vmm.export.auto_model

        return getattr(vmm.export.auto_model, name)
    raise AttributeError(f"module 'vmm' has no attribute {name!r}")
