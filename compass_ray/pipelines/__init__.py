"""Compositions of stages: the public API, and the only modules that import several stages."""
