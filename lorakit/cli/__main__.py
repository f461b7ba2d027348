"""`python -m lorakit.cli`, where no `lorakit` is on the path."""

from lorakit.cli import main

main()
