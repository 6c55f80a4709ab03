"""Studies: expand a YAML file into runs, execute them and report their state."""
