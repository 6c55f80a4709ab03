"""The command line, ``tldr-lab``."""
