"""`python -m joulebox` is the command line."""

from joulebox.cli import main

main()
