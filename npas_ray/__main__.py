"""`python -m npas_ray` is `npas`."""

import sys

from npas_ray.cli import main

if __name__ == "__main__":
    sys.exit(main())
