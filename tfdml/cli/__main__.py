"""`python -m tfdml.cli`."""

from tfdml.cli import main

main()
