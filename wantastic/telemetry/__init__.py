"""Logs, metrics, health conditions, status, capture."""
