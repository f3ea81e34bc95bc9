"""What every part stands on: settings, errors, values, tokens, keys. Nothing here knows about HTTP, SQL or storages."""
