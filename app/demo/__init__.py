"""The demo: the whole main job over HTTP, every step shown and checked. Knows of the service only what its API says."""

from app.demo.walk import run_demo

__all__ = ["run_demo"]
