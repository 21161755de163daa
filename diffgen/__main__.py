"""`python -m diffgen`."""

from diffgen.cli import main

main()
