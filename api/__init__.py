"""Sluice's control plane. It decides; the storages and nginx move the bytes."""

__version__ = "0.2.0"
