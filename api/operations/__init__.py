"""Health, figures and checks for operators."""
