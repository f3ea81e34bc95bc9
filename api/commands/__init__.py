"""The operator's commands: ``python -m api …``."""
