"""Stands in for protobuf's messages in pure Python, which beside upb are imported and not used."""
