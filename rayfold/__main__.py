"""`python -m rayfold` is the command `rayfold`."""

from orchestrator.__main__ import main

if __name__ == "__main__":
    main()
