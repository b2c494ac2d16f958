"""The build-time variables that sysconfig asks for: none, since nothing is compiled here."""

build_time_vars: dict[str, object] = {}
