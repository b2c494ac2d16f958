"""Logs, conditions, status, the status socket."""
