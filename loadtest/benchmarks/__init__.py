"""Side-by-side benchmarks: Sluice and a peer, in turns, in one run.

Both share this machine's cores with each other and with the client, so a figure alone says little: what counts is the
ratio of two neighbours in time, and the CPU seconds that the servers' processes spent on a piece of work.
"""
