"""The two ends of a migration: what they say to each other, and what the effects of a job mean at each."""
