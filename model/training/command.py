"""The command line of training: `python jobs/train.py --help`."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from .. import weights
from ..config import Config
from ..engine import NativeEngine
from ..pointing import SIDE_FILE
from ..prompt import Tokenizer
from . import peers
from .card import write_figures
from .charts import write_charts
from .evaluation import evaluate
from .heads import inherit_heads, save_heads
from .inheritance import inherit
from .lessons import SCHOOL
from .report import CURVES
from .sizes import DEBUG, FULL
from .stages import STAGES, run
from .trainer import Trainer
from .whole import How

BASE = Path(__file__).resolve().parent.parent / "checkpoints" / "default"
SCORING_BUDGET_BYTES = 256 << 20
# Drawn while training: shares of tokens that are right in the thinking and after it; nats and distances of the rest.
CHARTED = (
    "right", "answer", "named", "text", "off", "look", "patch_noun", "patch_print", "patch_degree", "patch_leads",
    "cell_noun", "cell_print", "cell_degree", "cell_leads", "cell_way",
)  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Train, run stages with `--stage`, write what there is with `--export`, or score with `--score`."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.card and not options.score:
        parser.error("--card goes with --score, which measures what it writes")
    torch.set_num_threads(options.threads)
    peers.join()
    if peers.count() > 1 and (options.stage or options.score):
        parser.error("--stage and --score run in one process: start them without torchrun")
    if options.greyed and (options.stage or options.score):
        parser.error("--greyed goes with the school: leave out --stage and --score")
    how = How(torch.bfloat16, compiled=True) if options.fast else How()
    if options.score:
        _score(options, options.scenes == parser.get_default("scenes"))
    elif options.stage:
        _run_stages(options, how)
    else:
        _train(options, how)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a pointing checkpoint on drawn scenes, resume it, or score it.")
    parser.add_argument("--config", type=Path, default=BASE, help="folder with config.json and tokenizer.json")
    parser.add_argument("--state", type=Path, default=Path("runs/train"), help="where it stands; resumed if there")
    parser.add_argument("--checkpoint", type=Path, help="to write, or to score [STATE/checkpoint]")
    parser.add_argument("--begin-with", type=Path, help="checkpoint to begin with; with --stage the base itself")
    parser.add_argument("--fast", action="store_true", help="compiled, with products in bf16: for CPUs that have them")
    parser.add_argument("--stage", action="append", default=[], help=f"run one: {', '.join(STAGES)}, or all; repeat")
    parser.add_argument("--debug-size", action="store_true", help="with --stage: minutes, for tiny models")
    parser.add_argument("--export", action="store_true", help="write CHECKPOINT as STATE stands, without training")
    parser.add_argument("--share", type=float, default=1.0, help="of each lesson's steps and each stage's rounds")
    parser.add_argument("--greyed", action="store_true", help="grey all images out: a blind model, to compare with")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--score", action="store_true", help="score CHECKPOINT instead of training")
    parser.add_argument("--card", action="store_true", help="with --score: write the figures into CHECKPOINT/CARD.md")
    parser.add_argument("--scenes", type=int, default=500, help="held-out scenes to score on, four questions each")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


def _score(options: argparse.Namespace, usual: bool) -> None:
    checkpoint = options.checkpoint or options.state / "checkpoint"
    engine = NativeEngine(checkpoint, kv_budget_bytes=SCORING_BUDGET_BYTES)
    figures = evaluate(engine, options.scenes)
    engine.close()
    print(json.dumps(figures, indent=1))
    if options.card:
        scenes = "" if usual else f" --scenes {options.scenes}"
        command = f"python jobs/train.py --score --checkpoint {checkpoint}{scenes}"
        write_figures(checkpoint / "CARD.md", figures, command)


def _run_stages(options: argparse.Namespace, how: How) -> None:
    """The stages asked for; with `--begin-with` that checkpoint is what `base` has made."""
    base = options.state / "base" / "checkpoint"
    if options.begin_with and not base.exists():
        shutil.copytree(options.begin_with, base)
    stages = STAGES if options.stage == ["all"] else options.stage
    sizes = (DEBUG if options.debug_size else FULL).shortened(options.share)
    made = run(options.config, options.state, sizes, stages=stages, how=how, seed=options.seed, log=_say)
    print(f"{made}; the report is in {options.state}")


def _train(options: argparse.Namespace, how: How) -> None:
    lessons = [lesson.shortened(options.share) for lesson in SCHOOL]
    if options.greyed:  # without the lessons that only teach to see
        lessons = [replace(lesson, greyed=True) for lesson in lessons if lesson.answers]
    trainer = Trainer(Config.from_file(options.config), options.config, lessons, options.state, options.seed, how)
    if options.begin_with and trainer.images == 0:
        missing = inherit(trainer.student.model, Tokenizer(options.config), options.begin_with)
        heads = "its" if inherit_heads(trainer.student, options.begin_with) else "no"
        _say(f"{options.begin_with} gave all but {', '.join(missing) or 'nothing'}, and {heads} dense heads")
    if not options.export:
        trainer.run(log=_say)
    if peers.number() != 0:
        return
    checkpoint = options.checkpoint or options.state / "checkpoint"
    weights.save(trainer.student.model, checkpoint)
    save_heads(trainer.student, checkpoint)
    for name in ("tokenizer.json", SIDE_FILE):
        if (options.config / name).is_file():
            shutil.copy(options.config / name, checkpoint)
    if trainer.history:
        curves = {name: {"": [row[name] for row in trainer.history if name in row]} for name in CHARTED}
        write_charts(options.state / CURVES, curves)
    print(f"{checkpoint}: {trainer.images} images in {trainer.seconds:.0f} s")
