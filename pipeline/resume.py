"""Going on where an output stands: what is done stays, what is not asked any more or failed is taken back first.

Rows are taken out of the table before they are asked again, never marked: at no time does a reader see an answer and
the error that it replaces, and a run that is killed in between leaves rows that are missing, which the next one asks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from . import store
from .commits import Stock, format_of, missing, part_names, read_part, take_back, take_stock
from .keys import Conditions, among
from .settings import Settings
from .sink import ANSWERS_FOLDER, RECORD, part_uri

_ASKED = "_run/asked.json"
_LEASE = "lease.json"
_EXAMPLES = 3
_MAX_BYTES = 1 << 24


def take_up(output: str, settings: Settings, asked: np.ndarray, terms: Mapping[str, Any]) -> np.ndarray:
    """Makes an output ready to be gone on with and returns the sorted short keys of its rows, all among `asked`.

    `terms`: what `terms_of` says of this run. ValueError when the output answers something else and may not be changed.
    """
    if settings.overwrite:
        _clear(output)
    _sweep(output)
    stock = take_stock(output)
    if (format := format_of(stock.names)) not in (None, settings.format):
        raise ValueError(f"{output} holds {format} files: go on with --format {format}, or choose another --output")
    stale = ~among(stock.keys, np.sort(asked))
    if stale.any() and settings.on_change == "refuse":
        raise ValueError(_what_changed(output, stock, stale, terms))
    drop = stale | stock.doubled()
    if settings.retry_errors:
        drop |= stock.is_error
    kept = np.sort(stock.keys[~drop])
    if len(kept) < len(asked):
        store.remove(store.join(output, RECORD))  # first: without it nothing claims to be complete
    take_back(output, stock, drop)
    if _terms_before(output) != terms:
        store.write(store.join(output, _ASKED), json.dumps(terms, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return kept


def read_back(output: str, asked: np.ndarray) -> np.ndarray:
    """Reads the whole table and returns the places in `asked` whose rows are missing.

    Rows that are there twice, or that nobody asked for (of a run that was cut off and wrote on), are taken out.
    """
    stock = take_stock(output)
    take_back(output, stock, stock.doubled() | ~among(stock.keys, np.sort(asked)))
    return missing(asked, stock)


def terms_of(settings: Settings, catalog: str, conditions: Conditions) -> dict[str, Any]:
    """What a run asks and under which conditions, to be compared and explained. Rows are compared by their keys."""
    return {"catalog": catalog, "question": settings.question, "limit": settings.limit, **asdict(conditions)}


def _what_changed(output: str, stock: Stock, stale: np.ndarray, terms: Mapping[str, Any]) -> str:
    before = _terms_before(output)
    changes = [
        f"{name} was {before[name]!r} and is {value!r}"
        for name, value in terms.items()
        if name in before and before[name] != value
    ]
    what = "; ".join(changes) or f"the catalog changed: it does not ask {_examples(output, stock, stale)} any more"
    return (
        f"{output} answers something else: {what}. That leaves {int(stale.sum()):,} of its {len(stale):,} rows without"
        " use. Choose another --output, or let --on-change renew drop them and answer what is new"
    )


def _terms_before(output: str) -> dict[str, Any]:
    try:
        data, _ = store.read(store.join(output, _ASKED), _MAX_BYTES)
        before: dict[str, Any] = json.loads(data.decode("utf-8", "surrogatepass"))
    except (store.StoreError, ValueError):  # never written, or by somebody else: it only explains
        return {}
    return before


def _examples(output: str, stock: Stock, rows: np.ndarray) -> str:
    number = int(stock.part[np.flatnonzero(rows)[0]])
    table = read_part(part_uri(output, stock.names[number]), ["image_id", "question_id", "question"])
    places = np.flatnonzero(rows[stock.part == number])[:_EXAMPLES].tolist()
    return ", ".join(
        f"question {row['question_id']} of {row['image_id']!r} ({row['question']!r})"
        for row in table.take(places).to_pylist()
    )


def _clear(output: str) -> None:
    """Removes the table and all that is known of it; files that are not ours stay."""
    store.remove(store.join(output, RECORD))  # first, as above
    for name in part_names(output):
        store.remove(part_uri(output, name))
    for name in list(store.list_under(store.join(output, "_run"))):
        if name != _LEASE:
            store.remove(store.join(output, f"_run/{name}"))


def _sweep(output: str) -> None:
    """Removes what writers that were killed left unfinished; nobody ever saw it. A store has no such thing."""
    if not store.is_s3(output):
        for folder in (Path(output, ANSWERS_FOLDER), Path(output, "_run"), Path(output, "_run", "traces")):
            for unfinished in folder.glob(".*.tmp"):
                unfinished.unlink(missing_ok=True)
