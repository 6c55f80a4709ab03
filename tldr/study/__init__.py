"""The study: one YAML file, expanded into runs, run, and accounted for."""
