"""What an operator types: ``python -m api …``."""
