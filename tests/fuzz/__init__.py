"""Fuzz targets, their corpus, and the runner."""
