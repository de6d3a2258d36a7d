"""The guest's memory: which pages are dirty, how they are sent and taken, and what slows the guest."""
