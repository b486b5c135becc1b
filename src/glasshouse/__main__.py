"""`python -m glasshouse`: the command of the Python at hand, wherever its script may lie."""

from glasshouse.cli import main

main()
