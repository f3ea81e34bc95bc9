"""Health, metrics and checks for operators."""
