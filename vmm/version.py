"""The version of vmm, for what must not import all of it."""

__version__ = "0.1.0"
