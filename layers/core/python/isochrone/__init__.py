"""Isochrone: an edge router for LLM requests. The way of a request is in `isochrone.pipeline`."""

__version__ = "0.1.0"
