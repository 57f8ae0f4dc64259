"""The command line of training: `python jobs/train.py --help`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from .. import weights
from ..config import Config
from ..engine import NativeEngine
from ..pointing import SIDE_FILE
from ..prompt import Tokenizer
from .card import write_figures
from .evaluation import evaluate
from .inheritance import inherit
from .lessons import SCHOOL
from .trainer import Trainer
from .whole import How

DEFAULT = Path(__file__).resolve().parent.parent / "checkpoints" / "default"
SCORING_BUDGET_BYTES = 256 << 20


def main(argv: list[str] | None = None) -> None:
    """Train, write what there is with `--export`, or score with `--score`."""
    parser = argparse.ArgumentParser(description="Train a pointing checkpoint on drawn scenes, resume it, or score it.")
    parser.add_argument("--config", type=Path, default=DEFAULT, help="folder with config.json and tokenizer.json")
    parser.add_argument("--state", type=Path, default=Path("runs/train"), help="where it stands; resumed if there")
    parser.add_argument("--checkpoint", type=Path, help="to write, or to score [STATE/checkpoint]")
    parser.add_argument("--begin-with", type=Path, help="checkpoint whose weights a new training begins with")
    parser.add_argument("--fast", action="store_true", help="compiled, with products in bf16: for CPUs that have them")
    parser.add_argument("--export", action="store_true", help="write CHECKPOINT as STATE stands, without training")
    parser.add_argument("--share", type=float, default=1.0, help="of each lesson's steps, e.g. 0.01")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--score", action="store_true", help="score CHECKPOINT instead of training")
    parser.add_argument("--card", action="store_true", help="with --score: write the figures into CHECKPOINT/CARD.md")
    parser.add_argument("--scenes", type=int, default=500, help="held-out scenes to score on, four questions each")
    options = parser.parse_args(argv)
    if options.card and not options.score:
        parser.error("--card goes with --score, which measures what it writes")
    torch.set_num_threads(options.threads)
    checkpoint = options.checkpoint or options.state / "checkpoint"
    if options.score:
        engine = NativeEngine(checkpoint, kv_budget_bytes=SCORING_BUDGET_BYTES)
        figures = evaluate(engine, options.scenes)
        engine.close()
        print(json.dumps(figures, indent=1))
        if options.card:
            scenes = "" if options.scenes == parser.get_default("scenes") else f" --scenes {options.scenes}"
            command = f"python jobs/train.py --score --checkpoint {checkpoint}{scenes}"
            write_figures(checkpoint / "CARD.md", figures, command)
        return
    lessons = [lesson.shortened(options.share) for lesson in SCHOOL]
    how = How(torch.bfloat16, compiled=True) if options.fast else How()
    trainer = Trainer(Config.from_file(options.config), options.config, lessons, options.state, options.seed, how)
    if options.begin_with and trainer.images == 0:
        missing = inherit(trainer.student.model, Tokenizer(options.config), options.begin_with)
        print(f"{options.begin_with} gave all but {', '.join(missing) or 'nothing'}", flush=True)
    if not options.export:
        trainer.run(log=lambda line: print(line, flush=True))
    weights.save(trainer.student.model, checkpoint)
    for name in ("tokenizer.json", SIDE_FILE):
        if (options.config / name).is_file():
            shutil.copy(options.config / name, checkpoint)
    print(f"{checkpoint}: {trainer.images} images in {trainer.seconds:.0f} s")
