"""HTTP in and out: what all calls share. The only code that knows falcon."""
