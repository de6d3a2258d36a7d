"""Runs migrations to measure them: processes, results, comparison."""
