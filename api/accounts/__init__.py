"""Users, sessions, what ends a token, and what an account has used."""
