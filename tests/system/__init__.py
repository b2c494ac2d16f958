"""The whole program as a user starts it."""
