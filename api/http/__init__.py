"""HTTP in and out: what all resources share. With `*/resource.py`, the only code that knows falcon."""
