"""Users, sessions, revocations of tokens, and the traffic of accounts."""
