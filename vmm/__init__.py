"""vmm: train, evaluate and use VideoMamba-style video-text encoders."""

__version__ = "0.1.0"
