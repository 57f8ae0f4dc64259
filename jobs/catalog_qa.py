"""Ask questions of every image in a catalog; write answers that point. `--help` lists the settings."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.redaction import excepthook, shown
from pipeline.settings import Settings


def main() -> int:
    try:
        settings = Settings.load(sys.argv[1:])
        from pipeline.run import RunStopped, run  # Ray and torch take seconds: --help and mistakes needn't wait

        try:
            run(settings)
        except RunStopped as stopped:
            print(f"catalog_qa.py: {stopped}", file=sys.stderr)
            return 1
    except ValueError as error:
        print(f"catalog_qa.py: {shown(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("catalog_qa.py: stopped; what was answered is kept: the same --output goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.excepthook = excepthook
    sys.exit(main())
