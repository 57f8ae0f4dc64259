"""Ask several engines the same questions of the same images, and show how they differ. `--help` lists the settings.

python jobs/compare.py --engine "native kv_budget_mb=64" --engine "native kv_budget_mb=4 primitives=off" --limit 100
python jobs/compare.py --catalog c.parquet --gold answer --engine native --engine "openai endpoint=http://H/v1 model=M"
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.comparison.settings import CompareSettings
from pipeline.redaction import excepthook, shown


def main() -> int:
    try:
        settings = CompareSettings.load(sys.argv[1:])
        settings.candidates()
        from pipeline.comparison.command import (  # Ray and torch take seconds: mistakes needn't wait
            ComparisonStopped,
            compare,
        )

        try:
            compare(settings)
        except ComparisonStopped as stopped:
            print(f"compare.py: {shown(stopped)}", file=sys.stderr)
            return 1
    except ValueError as error:
        print(f"compare.py: {shown(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("compare.py: stopped; a comparison does not resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.excepthook = excepthook
    sys.exit(main())
