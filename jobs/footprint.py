"""What an image costs in KV cache bytes, how many fit a card, and how that compares. `--help` lists the settings."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.footprint.command import main
from pipeline.redaction import excepthook, shown

if __name__ == "__main__":
    sys.excepthook = excepthook
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as error:
        print(f"footprint.py: {shown(error)}", file=sys.stderr)
        sys.exit(2)
