"""vmm: train, evaluate and use VideoMamba-style video-text encoders."""

from typing import TYPE_CHECKING, Any

from vmm.version import __version__ as __version__

if TYPE_CHECKING:
    from vmm.export.encoder import VideoTextEncoder as VideoTextEncoder


def __getattr__(name: str) -> Any:
    """Import ``VideoTextEncoder``, and with it torch and transformers, when it is asked for."""
    if name == "VideoTextEncoder":
        import vmm.export.auto_model
        import vmm.export.encoder

        return vmm.export.encoder.VideoTextEncoder
    raise AttributeError(f"module 'vmm' has no attribute {name!r}")
