"""The HTTP faces of the server: device flow, approval page, metrics, health."""
