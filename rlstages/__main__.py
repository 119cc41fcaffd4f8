"""`python -m rlstages` is the command `rlstages`."""

from rlstages.cli import main

main()
