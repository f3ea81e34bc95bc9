"""The only place that holds SQL: one file per family of tables."""
