"""`python -m qm9flow`: the command line without an installed script."""

from qm9flow.cli.main import main

main()
