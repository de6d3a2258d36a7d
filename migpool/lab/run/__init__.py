"""Runs one migration between two processes of its own, and the form of what comes of it."""
