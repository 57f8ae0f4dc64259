"""The run record: what a run was told, what it did, and how fast. Written as run.json, printed as a short table."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from .gold import boxes_of
from .redaction import printable, redacted, without_secrets
from .settings import Settings
from .tally import Tally

_PACKAGES = ("ray", "torch", "pyarrow", "pillow")
_SHOWN_WHOLE = 64  # answers: a run of at most so many is shown whole
_SHOWN_OF_MORE = 8  # answers shown of a larger one


def run_record(
    run_id: str,
    settings: Settings,
    tallies: tuple[Tally, Tally],
    engines: Sequence[Mapping[str, Any]],
    times: tuple[datetime, datetime],
    seconds_answering: float,
) -> dict[str, Any]:
    """The record of a finished run. `tallies`: of the whole table, and of the rows that this run (the last session,
    where there were several) answered itself; rates are of the latter. `engines`: an EngineStats of each, as a mapping;
    seconds by stage are sums over images, which are worked on side by side, so they may exceed the duration."""
    tally, session = tallies
    started, finished = times
    duration = (finished - started).total_seconds()
    rate_over = max(seconds_answering, 1e-9)
    return {
        "run_id": run_id,
        "started_at": started.isoformat(),
        "finished_at": finished.isoformat(),
        "seconds": {"total": round(duration, 3), "answering": round(seconds_answering, 3)},
        "settings": without_secrets(settings.model_dump()),
        "versions": versions(),
        "counts": {
            "images": tally.images,
            "images_answered": tally.images_ok,
            "answers": tally.rows,
            "ok": tally.ok,
            "error": tally.error_rows,
            "cut_off": tally.cut_off,
            "files": tally.files,
        },
        "session": {
            "answers": session.rows,
            "ok": session.ok,
            "error": session.error_rows,
            "errors": _by_stage(session.errors),
            "tokens": {"prompt": session.prompt_tokens, "output": session.output_tokens},
        },
        "errors": _by_stage(tally.errors),
        "image_notes": dict(tally.notes.most_common()),
        "answers_per_second": round(session.rows / rate_over, 3),
        "images_per_second": round(session.images / rate_over, 3),
        "tokens": {"prompt": tally.prompt_tokens, "output": tally.output_tokens},
        "cost": _cost(settings, tally),
        "answers_with_shared_prefill": tally.shared_prefill,
        "stage_seconds": {stage: spent / 1e6 for stage, spent in tally.microseconds.items()},
        "engines": _engine_totals(engines),
        "gold": _gold(tally),
    }


def summary(record: Mapping[str, Any], first: Sequence[Mapping[str, Any]], output: str) -> str:
    """The short table at the end of a run: first answers, counts, errors, score, engine, and where things are."""
    counts, engines, gold = record["counts"], record["engines"], record["gold"]
    lines = _answer_lines(first if counts["answers"] <= _SHOWN_WHOLE else first[:_SHOWN_OF_MORE])
    lines += [
        f"{counts['answers']} answers for {counts['images']} images in {record['seconds']['total']:.1f} s"
        f" ({record['answers_per_second']:.1f} answers/s once the engine was ready):"
        f" {counts['ok']} ok, {counts['error']} {'error' if counts['error'] == 1 else 'errors'}"
    ]
    before = counts["answers"] - record["session"]["answers"]
    if before:
        lines.append(f"resumed  {before} answers were there; this run added {record['session']['answers']}")
    kinds = sorted(((count, f"{stage}/{kind}") for stage, by in record["errors"].items() for kind, count in by.items()))
    if kinds:
        lines.append("errors   " + ", ".join(f"{name} {count}" for count, name in reversed(kinds)))
    if counts["cut_off"]:
        lines.append(f"cut off  {counts['cut_off']} responses at max_output_tokens")
    if gold:
        lines.append("gold     " + "; ".join(_gold_parts(gold)))
    if record["cost"]:
        lines.append(
            f"cost     {record['cost']['total']:.4f}, {record['cost']['per_1000_answers']:.4f} for 1,000 answers"
        )
    if engines["kv_bytes_per_image"]:
        lines.append(
            f"KV cache {engines['kv_bytes_per_image']:,} bytes an image"
            f" (predicted {engines['kv_bytes_per_image_predicted']:,});"
            f" at most {engines['images_in_flight_peak']} images in flight,"
            f" {engines['kv_peak_bytes'] / 1e6:.1f} of {engines['kv_budget_bytes'] / 1e6:.0f} MB;"
            f" engine busy {engines['busy_share'] * 100:.0f} %"
        )
    return "\n".join([*lines, f"written  {printable(redacted(output))}"])


def _cost(settings: Settings, tally: Tally) -> dict[str, float] | None:
    """What the tokens of the whole table cost at the settings' prices; None without prices."""
    total = (tally.prompt_tokens * settings.price_prompt + tally.output_tokens * settings.price_output) / 1e6
    return {"total": total, "per_1000_answers": 1000 * total / max(tally.ok, 1)} if total else None


def _answer_lines(first: Sequence[Mapping[str, Any]]) -> list[str]:
    if not first:
        return []
    rows = [("image", "question", "answer", "boxes in pixels", "KV entries")]
    for row in first:
        boxes = " ".join("[" + " ".join(f"{value:.0f}" for value in box) + "]" for box in boxes_of(row)) or "-"
        entries = str(row["usage"]["kv_entries"])
        rows.append((printable(row["image_id"]), printable(row["question"]), printable(row["answer"]), boxes, entries))
    room = max(shutil.get_terminal_size((120, 24)).columns - 12, 60)
    shares = [room * share // 100 for share in (18, 32, 16, 34)]
    widths = [min(max(len(row[i]) for row in rows), share) for i, share in enumerate(shares)]
    lines = []
    for *texts, entries in rows:
        cells = [_fitted(cell, width).ljust(width) for cell, width in zip(texts, widths, strict=True)]
        lines.append("  ".join([*cells, entries.rjust(10)]))
    return [lines[0], "-" * len(lines[0]), *lines[1:], ""]


def _fitted(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _gold_parts(gold: Mapping[str, Any]) -> list[str]:
    parts = []
    if gold["answers"]:
        parts.append(f"{gold['exact_share'] * 100:.1f} % of {gold['answers']} answers exact")
    if gold["boxes_scored"]:
        parts.append(f"mean IoU of the boxes {gold['mean_iou']:.3f} over {gold['boxes_scored']} answers")
    return parts


def _gold(tally: Tally) -> dict[str, Any] | None:
    if not tally.gold_answers and not tally.gold_boxes:
        return None
    return {
        "answers": tally.gold_answers,
        "exact_share": tally.gold_exact / tally.gold_answers if tally.gold_answers else None,
        "boxes_scored": tally.gold_boxes,
        "mean_iou": tally.gold_iou / tally.gold_boxes if tally.gold_boxes else None,
    }


def _engine_totals(engines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over the engines; budget and peaks are of the one where they were largest."""

    def total(name: str) -> Any:
        return sum(engine[name] for engine in engines)

    def most(name: str) -> Any:
        return max((engine[name] for engine in engines), default=0)

    reasons: Counter[str] = Counter()
    for engine in engines:
        reasons.update(engine["idle_reasons"])
    requests, seconds = total("requests"), total("busy_s") + total("idle_s")
    return {
        "count": len(engines),
        "requests": requests,
        "steps": total("steps"),
        "busy_share": round(total("busy_s") / seconds, 4) if seconds else 0.0,
        "budget_full_seconds": round(total("budget_full_s"), 3),
        "sequences_per_step": round(total("sequence_steps") / total("steps"), 2) if total("steps") else 0.0,
        "images_seen": total("images_seen"),
        "process_peak_bytes": most("process_peak_bytes"),
        "idle_seconds": {reason: round(spent, 3) for reason, spent in reasons.most_common()},
        "kv_budget_bytes": most("kv_budget_bytes"),
        "kv_peak_bytes": most("kv_peak_bytes"),
        "kv_bytes_per_image": total("kv_bytes_measured") // requests if requests else 0,
        "kv_bytes_per_image_predicted": total("kv_bytes_predicted") // requests if requests else 0,
        "images_in_flight_peak": most("images_in_flight_peak"),
    }


def _by_stage(errors: Counter[str]) -> dict[str, dict[str, int]]:
    stages: dict[str, dict[str, int]] = {}
    for name, count in errors.most_common():
        stage, _, kind = name.partition("/")
        stages.setdefault(stage, {})[kind] = count
    return stages


def versions() -> dict[str, str]:
    """What this process runs on: Python, this project and the packages that answers may depend on."""
    found = {"python": platform.python_version()}
    for package in ("deixis", *_PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout that was never installed
            found[package] = "not installed"
    return found
