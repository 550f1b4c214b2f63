"""Benchmarks: one command answers one question; `python -m benchmarks.cpu --help` lists them."""
