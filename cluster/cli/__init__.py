"""The command `rayward`. Commands import what they need when they run, so that help is quick."""

from cluster.cli.app import app, main

__all__ = ["app", "main"]
