"""The report: one HTML file for people, which needs nothing but itself."""
