"""The calls that nginx makes to the API."""
