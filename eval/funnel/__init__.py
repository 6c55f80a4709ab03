"""The raw-data filter's funnel."""
