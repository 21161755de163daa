"""`python -m diffgen`."""

from diffgen.cli import main

if __name__ == "__main__":
    main()
