"""Boxes against boxes: intersection over union, and the best one-to-one matching of two sets."""

from __future__ import annotations

from collections.abc import Sequence

Box = tuple[float, float, float, float]  # x1, y1, x2, y2

_EXACT_UP_TO = 8  # boxes in the smaller set; above, 2^n states would take long


def mean_iou(predicted: Sequence[Box], targets: Sequence[Box]) -> float | None:
    """Matched IoU over the larger number of boxes: a missed or surplus box counts as 0. None when both are empty."""
    due = max(len(predicted), len(targets))
    return _matched_iou(predicted, targets) / due if due else None


def hits(predicted: Sequence[Box], targets: Sequence[Box], threshold: float) -> int:
    """How many targets have a prediction of their own at the IoU threshold, which is above 0.5 or targets lie apart."""
    return sum(any(iou(box, target) >= threshold for box in predicted) for target in targets)


def iou(a: Box, b: Box) -> float:
    """Intersection over union; a box with no area, or turned inside out, overlaps nothing."""
    overlap = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if overlap > 0 and union > 0 else 0.0


def _matched_iou(left: Sequence[Box], right: Sequence[Box]) -> float:
    """The largest sum of IoUs over one-to-one matchings; greedy where the exact search would take long."""
    few, many = sorted((left, right), key=len)
    table = [[iou(a, b) for b in few] for a in many]
    if len(few) > _EXACT_UP_TO:
        return _greedy_iou(table)
    best = {0: 0.0}  # set of matched `few`, as bits -> best sum so far
    for row in table:
        grown = dict(best)
        for taken, total in best.items():
            for j, value in enumerate(row):
                if value > 0 and not taken >> j & 1:
                    grown[taken | 1 << j] = max(grown.get(taken | 1 << j, 0.0), total + value)
        best = grown
    return max(best.values())


def _greedy_iou(table: list[list[float]]) -> float:
    pairs = sorted(((value, i, j) for i, row in enumerate(table) for j, value in enumerate(row)), reverse=True)
    rows: set[int] = set()
    columns: set[int] = set()
    total = 0.0
    for value, i, j in pairs:
        if i not in rows and j not in columns:
            rows.add(i)
            columns.add(j)
            total += value
    return total
