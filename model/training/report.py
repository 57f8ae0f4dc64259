"""What the stages did: scores on validation cases after each, the rewards on the way, the curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..sampling import GREEDY
from ..tasks.suites import suite_of
from .charts import Table, write_charts, write_tables
from .rollouts import Prompt, Sampler

REPORT, TABLE, PICTURE, CURVES = "report.json", "report.md", "report.png", "curves.png"
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
    """Write the report of all stages so far, by their names: JSON, tables as Markdown and PNG, the curves."""
    document = {"scores": scores, "histories": histories}
    (folder / REPORT).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    tables = scores_table(scores), rewards_table(histories)
    (folder / TABLE).write_text("\n\n".join(map(markdown, tables)) + "\n", encoding="utf-8")
    write_tables(folder / PICTURE, tables)
    charts = {
        figure: {stage: line for stage, history in histories.items() if (line := _line(history, figure))}
        for figure in SHARED
    }
    charts |= {f"{stage}: {figure}": {"": _line(histories[stage], figure)} for stage in histories for figure in OWN}
    write_charts(folder / CURVES, charts)


def _line(history: History, figure: str) -> list[float]:
    return [row[figure] for row in history if figure in row]


def scores_table(scores: Mapping[str, Scores]) -> list[list[str]]:
    """A row for each stage after the heads: the score and the percent exact of each suite."""
    suites = list(dict.fromkeys(suite for each in scores.values() for suite in each))
    rows = [["validation: score (exact)", *suites]]
    for stage, each in scores.items():
        cells = [f"{each[s]['score']:.3f} ({100 * each[s]['exact']:.0f} %)" if s in each else "" for s in suites]
        rows.append([stage, *cells])
    return rows


def rewards_table(histories: Mapping[str, History]) -> list[list[str]]:
    """A row for each stage that drew responses, after the heads: the reward and its heads over its first and its last
    rounds."""
    columns = ("reward", "format", "quality", "accuracy", "correct")
    rows = [["rewards: first -> last fifth of rounds", *columns]]
    for stage, history in histories.items():
        rounds = [row for row in history if "reward" in row]
        if rounds:
            fifth = -(-len(rounds) // 5)
            parts = rounds[:fifth], rounds[-fifth:]
            ends = [[sum(row[c] for row in part) / fifth for c in columns] for part in parts]
            rows.append([stage, *(f"{first:.3f} -> {last:.3f}" for first, last in zip(*ends, strict=True))])
    return rows


def markdown(table: Table) -> str:
    """A table's Markdown."""
    head, *rows = (f"| {' | '.join(row)} |" for row in table)
    return "\n".join([head, "|---" * len(table[0]) + "|", *rows])
