"""Users of Sluice for locust: they behave as real ones do, and as bad ones do."""
