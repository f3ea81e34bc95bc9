"""Sluice's control plane: it decides, storage and nginx carry the bytes."""

__version__ = "0.2.0"
