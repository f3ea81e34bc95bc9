"""Content, stored once however many files have it: merged, verified, read back, scrubbed, copied."""
