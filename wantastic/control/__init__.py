"""The control plane client: enrolment, tokens, configuration over gRPC."""
