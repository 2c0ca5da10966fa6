"""`python -m xai RUN …`: the same as `rayfold explain RUN …`, for `ray job submit`."""

import sys
from runpy import run_module

if __name__ == "__main__":
    sys.argv[1:1] = ["explain"]
    run_module("orchestrator", run_name="__main__")
