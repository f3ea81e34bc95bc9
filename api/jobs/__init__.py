"""Background jobs: rows hold them, a queue announces them, a runner runs them."""
