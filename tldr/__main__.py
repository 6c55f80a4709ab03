"""``python -m tldr`` is ``tldr-lab``."""

from tldr.cli.main import main

if __name__ == "__main__":
    main()
