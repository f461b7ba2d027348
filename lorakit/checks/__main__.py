"""python -m lorakit.checks student notebooks/ OUT/      pages with starters; or `instructor`"""

import argparse
import sys
from pathlib import Path

from lorakit.checks import EXERCISES
from lorakit.checks.versions import KINDS, write_versions


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lorakit.checks",
        description="Write every page with the exercises' starters (student) or solutions "
        "(instructor) in it. Links between pages and data hold if OUT is beside the pages' folder.",
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("pages", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    try:
        written = write_versions(options.pages, options.kind, options.out, EXERCISES)
    except ValueError as error:
        sys.exit(f"error: {error}")
    for path in written:
        print(path)


if __name__ == "__main__":
    main()
