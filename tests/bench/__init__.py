"""Measures the platform; run by `make bench`."""
