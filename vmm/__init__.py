"""vmm: train, evaluate and use VideoMamba-style video-text encoders."""

from typing import TYPE_CHECKING, Any

from vmm.version import __version__ as __version__

if TYPE_CHECKING:
    from vmm.export.classifier import ActionClassifier as ActionClassifier
    from vmm.export.encoder import VideoTextEncoder as VideoTextEncoder


def __getattr__(name: str) -> Any:
    """Import a class, and with it torch and transformers, when it is asked for."""
    if name in ("VideoTextEncoder", "ActionClassifier"):
        import vmm.export.auto_model

        return getattr(vmm.export.auto_model, name)
    raise AttributeError(f"module 'vmm' has no attribute {name!r}")
