"""`python -m benchmarks NAME ...`: one bench; what it refuses is a sentence, as of every command."""

import runpy
import sys

from features.errors import SeminarError

if __name__ == "__main__":
    name = sys.argv.pop(1)
    try:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)
    except SeminarError as error:
        sys.exit(f"seminar: {error}")
