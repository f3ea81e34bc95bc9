"""Users of Sluice for locust: some behave as real users do, others as attackers."""
