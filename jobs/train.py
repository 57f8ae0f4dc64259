"""Train a checkpoint on the suites, run the stages after that, or score one. docs/training.md says more.

    python jobs/train.py                              train from nothing into runs/train, or go on there
    python jobs/train.py --stage all                  specialists, reinforcement, rejection, distillation
    python jobs/train.py --checkpoint DIR --score     print the figures of a checkpoint on 500 held-out scenes;
                                                      with --card, write them into its CARD.md too
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model.training.command import main

if __name__ == "__main__":
    main()
