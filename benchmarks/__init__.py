"""Measurements of the service and of what else one could run in its place; imported by nothing in ``app``."""
