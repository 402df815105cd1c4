"""`python -m pccd_workflows` is `pccd`."""

from pccd_workflows.cli import main

main()
