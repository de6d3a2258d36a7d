"""The tests, importable by their full names: ``tests.support`` holds what several of them share."""
