"""The guest that writes while it moves: its own word for the downtime, and what it costs to know what is written."""
