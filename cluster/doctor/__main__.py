"""`python -m cluster.doctor`."""

import sys

from cluster.doctor.report import main

if __name__ == "__main__":
    sys.exit(main())
