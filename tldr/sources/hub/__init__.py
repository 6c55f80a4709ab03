"""The known copies of the paper's data, by name: fetched, checked, and made into the project's records."""
