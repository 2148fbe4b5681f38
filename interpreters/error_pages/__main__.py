"""``python -m interpreters.error_pages NAME``: a page as plain text, where the extra ``cli`` is not installed."""

import sys

from interpreters.error_pages.plain import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
