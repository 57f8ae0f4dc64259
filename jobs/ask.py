"""One image, one question: the answer on the terminal, and the picture with it drawn in IMAGE.answer.png."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.asking import main
from pipeline.redaction import excepthook, shown

if __name__ == "__main__":
    sys.excepthook = excepthook
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as error:
        print(f"ask.py: {shown(error)}", file=sys.stderr)
        sys.exit(2)
