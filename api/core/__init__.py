"""Shared basics: settings, errors, records, tokens, keys. No HTTP, SQL or storage code."""
