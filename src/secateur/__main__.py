"""`python -m secateur`."""

from secateur.cli.main import main

main()
