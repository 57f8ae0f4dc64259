"""How well a checkpoint counts, locates, reads and finds its way: the task suites, or your own cases, with a table.

python jobs/benchmark.py                                  all suites and levels, 50 cases each
python jobs/benchmark.py --suite maze --level easy --cases 200
python jobs/benchmark.py --case-dir mine/                 your own cases: docs/cases.md
python jobs/benchmark.py --no-score --sheet sheets/       only look at what would be asked
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.benchmark.command import main
from pipeline.redaction import excepthook, shown

if __name__ == "__main__":
    sys.excepthook = excepthook
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as error:
        print(f"benchmark.py: {shown(error)}", file=sys.stderr)
        sys.exit(2)
