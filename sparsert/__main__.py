"""python -m sparsert: the same as the command sparsert."""

from sparsert.cli import main

if __name__ == "__main__":
    main()
