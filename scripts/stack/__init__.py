"""The private servers of one Sluice on one machine: configuration, start, supervision and stop.

Uses the standard library only, because it runs before (and without) the virtual environment.
"""
