"""Logs, metrics, health conditions, status, capture.

log.Log                 structured lines, secrets filtered
conditions.Conditions   what is not as it should be, with reason and remedy
status.Status           the document behind `-status --json`
socket.StatusServer     the 0600 Unix socket that hands it out
"""
