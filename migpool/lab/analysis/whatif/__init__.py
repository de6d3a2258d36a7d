"""What a downtime would have been with one resource out of the way, from what the traces say."""
