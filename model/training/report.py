"""What the stages did: scores on validation cases after each, the rewards on the way, the curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..sampling import GREEDY
from ..tasks.suites import suite_of
from .charts import write_charts
from .rollouts import Prompt, Sampler

REPORT, TABLE, CURVES = "report.json", "report.md", "curves.png"
SHARED = ("reward", "format", "quality", "accuracy", "correct", "tokens")  # figures drawn of all stages in one chart
OWN = ("loss", "kl")  # and those whose size is the stage's own

Scores = Mapping[str, Mapping[str, float]]  # by suite
History = Sequence[Mapping[str, float]]  # figures of each round, or of each time that they were logged


def validation_scores(
    checkpoint: Path, sampler: Sampler, sources: Sequence[str], count: int
) -> dict[str, dict[str, float]]:
    """For each suite of the sources: its score (0..1), and the shares of exact answers and of those well formed, over
    `count` validation cases of each source, answered greedily."""
    prompts = [Prompt(source, seed, "validation") for source in sources for seed in range(count)]
    cases = [prompt.case() for prompt in prompts]
    answers = sampler.answer(checkpoint, cases, 1, [GREEDY] * len(cases))
    verdicts: dict[str, list[tuple[float, bool, bool]]] = {}
    for case, (completion,) in zip(cases, answers, strict=True):
        verdict = suite_of(case.suite).judge(case, completion.text)
        verdicts.setdefault(case.suite, []).append((verdict.score, verdict.exact, verdict.well_formed))
    scores = {}
    for suite, rows in verdicts.items():
        means = [round(sum(map(float, column)) / len(rows), 4) for column in zip(*rows, strict=True)]
        scores[suite] = dict(zip(("score", "exact", "well_formed"), means, strict=True)) | {"cases": float(len(rows))}
    return scores


def write_report(folder: Path, scores: Mapping[str, Scores], histories: Mapping[str, History]) -> None:
    """Write the report of all stages so far, by their names: JSON, Markdown tables, a PNG of the curves."""
    document = {"scores": scores, "histories": histories}
    (folder / REPORT).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (folder / TABLE).write_text(f"{scores_table(scores)}\n\n{rewards_table(histories)}\n", encoding="utf-8")
    charts = {
        figure: {stage: line for stage, history in histories.items() if (line := _line(history, figure))}
        for figure in SHARED
    }
    charts |= {f"{stage}: {figure}": {"": _line(histories[stage], figure)} for stage in histories for figure in OWN}
    write_charts(folder / CURVES, charts)


def _line(history: History, figure: str) -> list[float]:
    return [row[figure] for row in history if figure in row]


def scores_table(scores: Mapping[str, Scores]) -> str:
    """Markdown: a row for each stage, the score and the percent exact of each suite."""
    suites = list(dict.fromkeys(suite for each in scores.values() for suite in each))
    lines = [f"| validation: score (exact) | {' | '.join(suites)} |", "|---" * (len(suites) + 1) + "|"]
    for stage, each in scores.items():
        cells = [f"{each[s]['score']:.3f} ({100 * each[s]['exact']:.0f} %)" if s in each else "" for s in suites]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rewards_table(histories: Mapping[str, History]) -> str:
    """Markdown: for each stage that drew responses, the reward and its heads over its first and its last rounds."""
    columns = ("reward", "format", "quality", "accuracy", "correct")
    lines = [f"| rewards: first -> last fifth of rounds | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for stage, history in histories.items():
        rows = [row for row in history if "reward" in row]
        if rows:
            fifth = -(-len(rows) // 5)
            ends = [[sum(row[c] for row in part) / fifth for c in columns] for part in (rows[:fifth], rows[-fifth:])]
            cells = [f"{first:.3f} -> {last:.3f}" for first, last in zip(*ends, strict=True)]
            lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines)
