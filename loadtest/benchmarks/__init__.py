"""Side-by-side benchmarks: Sluice and a peer, measured in turns in one run.

Sluice, the peer and the client share this machine's cores, so a single figure says little. Compare the ratio of two
neighbouring samples, and the CPU seconds that the servers' processes spent per unit of work.
"""
