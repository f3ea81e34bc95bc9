"""Places for bytes, behind one contract; only the composition root knows which there are."""
