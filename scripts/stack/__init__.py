"""The private servers of one Sluice on one machine: how each is configured, started, watched and stopped.

Standard library only: it runs before (and without) the virtual environment.
"""
