"""How fast the job, the engine and their peers are: a short table, then one JSON line. `--help` lists the settings."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.speed.command import main

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as error:
        print(f"speed.py: {error}", file=sys.stderr)
        sys.exit(2)
