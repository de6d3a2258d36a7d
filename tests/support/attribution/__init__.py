"""Migrations whose downtime is known: made spans, made worlds, and devices that take their time."""
