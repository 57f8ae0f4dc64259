"""Sums over answer rows: of one written file, of a session, of a whole table. Computed by column, a file at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .rows import ANSWERS

_FIRST_ANSWERS = 64  # kept to be shown: all of a small run, see `record.summary`
_STAGES = ("read", "fetch", "decode", "answer")
_SHOWN = ["image_id", "question", "answer", "primitives", "usage"]

# What the answering stage knows beyond the answers table. An image's figures stand in the row of the first question
# that was asked of it and are null in the others, so that sums over rows are right.
TRACE = pa.struct(
    [
        ("read_seconds", pa.float64()),
        ("fetch_seconds", pa.float64()),
        ("decode_seconds", pa.float64()),
        ("answer_seconds", pa.float64()),
        ("notes", pa.list_(pa.string())),
        ("gold_exact", pa.bool_()),
        ("gold_iou", pa.float64()),
    ]
)
TRACED_ANSWERS = ANSWERS.append(pa.field("trace", TRACE))


@dataclass
class Tally:
    """Sums over answer rows."""

    rows: int = 0
    ok: int = 0
    images: int = 0
    images_ok: int = 0
    cut_off: int = 0
    shared_prefill: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # "stage/kind"
    notes: Counter[str] = field(default_factory=Counter)
    microseconds: Counter[str] = field(default_factory=Counter)  # by stage, summed over images
    gold_answers: int = 0
    gold_exact: int = 0
    gold_boxes: int = 0
    gold_iou: float = 0.0
    files: int = 0
    first: list[dict[str, Any]] = field(default_factory=list)  # some answer rows, to be shown

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)
        del self.first[_FIRST_ANSWERS:]

    @property
    def error_rows(self) -> int:
        return self.rows - self.ok


def tally_of(block: pa.Table, shown: int = _FIRST_ANSWERS) -> Tally:
    """The sums over a block of TRACED_ANSWERS; `shown`: how many of its rows are kept to be shown."""
    is_ok = pc.equal(block.column("status"), "ok")
    is_first = pc.equal(block.column("question_id"), "0")
    usage = pc.struct_field(block.column("usage"), "shared_prefill")
    tally = Tally(
        rows=block.num_rows,
        ok=_count(is_ok),
        images=_count(is_first),
        images_ok=_count(pc.and_(is_first, is_ok)),
        cut_off=_count(pc.equal(block.column("finish_reason"), "length")),
        shared_prefill=_count(usage),
        prompt_tokens=_sum(pc.struct_field(block.column("usage"), "prompt_tokens")),
        output_tokens=_sum(pc.struct_field(block.column("usage"), "output_tokens")),
    )
    stages, kinds = (pc.struct_field(block.column("error"), name) for name in ("stage", "kind"))
    tally.errors = _values(pc.binary_join_element_wise(stages, kinds, "/"))
    _add_trace(tally, block.column("trace"))
    if shown:
        tally.first = block.select(_SHOWN).filter(is_ok).slice(0, shown).to_pylist()
    return tally


def _add_trace(tally: Tally, trace: pa.ChunkedArray) -> None:
    tally.notes = _values(pc.list_flatten(pc.struct_field(trace, "notes")))
    for stage in _STAGES:
        tally.microseconds[stage] = round(_sum(pc.struct_field(trace, f"{stage}_seconds")) * 1e6)
    exact, iou = pc.struct_field(trace, "gold_exact"), pc.struct_field(trace, "gold_iou")
    tally.gold_answers, tally.gold_exact = len(exact) - exact.null_count, _count(exact)
    tally.gold_boxes, tally.gold_iou = len(iou) - iou.null_count, float(_sum(iou))


def _count(flags: pa.ChunkedArray) -> int:
    return int(_sum(flags))


def _sum(values: pa.ChunkedArray) -> Any:
    return pc.sum(values).as_py() or 0


def _values(texts: pa.ChunkedArray) -> Counter[str]:
    counts = pc.value_counts(texts.drop_null()).to_pylist()
    return Counter({pair["values"]: pair["counts"] for pair in counts})
