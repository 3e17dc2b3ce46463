"""`python -m expost`: the command line, for launchers that start modules, such as torchrun."""

from expost.cli import main

if __name__ == "__main__":
    main()
