"""`python -m interpreters.cli`: the command."""

from interpreters.cli import main

if __name__ == "__main__":
    main()
