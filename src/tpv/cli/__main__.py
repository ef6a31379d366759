"""`python -m tpv.cli`."""

from tpv.cli import main

if __name__ == "__main__":
    main()
