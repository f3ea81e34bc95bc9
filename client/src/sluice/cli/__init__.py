"""The command `sluice`: the SDK for people and scripts."""
