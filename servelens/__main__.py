"""``python -m servelens``."""

from servelens.cli import main

if __name__ == "__main__":
    main()
