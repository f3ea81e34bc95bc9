"""The HTTP layer that all calls share. The only code that uses falcon."""
