"""Copies of blobs from one storage to another, in the background."""
