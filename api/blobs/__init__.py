"""Content, stored once for all files that have it: merge, verify, scrub and copy."""
