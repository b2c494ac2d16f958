"""Stands in for protobuf's messages in pure Python, which are imported and, beside upb, not used."""
