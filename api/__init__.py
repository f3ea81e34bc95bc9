"""Sluice's control plane: it decides, storage and nginx carry the bytes."""
