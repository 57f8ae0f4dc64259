"""The tables of `jobs/footprint.py`, from the records that `--json` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def image_report(record: dict[str, Any]) -> str:
    """One image: the way from pixels to bytes, other models beside it, and how many fit."""
    ours = record["total_bytes"]
    way = (
        f"{record['image']} -> canvas {record['canvas']} -> {record['patches']:,} patches"
        f" -> {record['image_tokens']} image tokens -> span of {record['span_tokens']}"
        f" (+ {record['alignment_pads']} to align) -> {record['csa_entries']} entries in each CSA layer"
        f" ({record['csa_entries_image_only']} of image tokens alone)"
    )
    asked = (
        f"{_many(record['questions'], 'question')}, {record['text_tokens']} text and {record['output_tokens']} output"
        f" tokens each: {record['request_tokens']} tokens a question, cache {record['cache']}"
    )
    branches = [
        ("sliding windows", record["sliding_bytes"]),
        ("CSA entries", record["csa_bytes"]),
        ("CSA indexer", record["indexer_bytes"]),
        ("HCA entries", record["hca_bytes"]),
        ("total", ours),
        ("unfinished windows, beside", record["unfinished_window_bytes"]),
        ("the image alone, in a long context", record["image_alone_bytes"]),
    ]
    if record["questions"] > 1:
        branches.append(("total, the image not shared", record["total_bytes_unshared"]))
    branches.append(("allocated by our engine", record["allocated_bytes"]))
    lines = [way, asked, "", *_table(("bytes of the request", ""), [(n, f"{b:,}") for n, b in branches]), ""]
    others = [
        ("this model", str(record["span_tokens"]), f"{ours:,}", "1.0"),
        (
            "same backbone, uncompressed, bf16",
            str(record["span_tokens"]),
            f"{record['uncompressed_bf16_bytes']:,}",
            f"{record['uncompressed_bf16_bytes'] / ours:.1f}",
        ),
    ]
    others += [
        (peer["name"], str(peer["image_tokens"]), f"{peer['bytes']:,}", f"{peer['bytes'] / ours:.1f}")
        for peer in record["peers"]
    ]
    entries = record["csa_entries_image_only"]
    others.append(
        (
            f"the article's others, in entries (ours {entries})",
            f"about {record['article_entries']}",
            "-",
            f"{record['article_entries'] / entries:.1f}",
        )
    )
    lines += _table(("one request of", "image tokens", "KV bytes", "ratio"), others)
    if "fit" in record:
        lines += ["", *_fit_lines(record["fit"])]
    if "estimate" in record:
        lines += ["", estimate_line(record["estimate"])]
    return "\n".join(lines)


def catalog_report(record: dict[str, Any]) -> str:
    """A catalog: its commonest sizes, and the bytes of a mean request."""
    lines = [
        f"{_many(record['images'], 'image')}, {_many(record['answers'], 'question')}, {_many(record['sizes'], 'size')};"
        f" headers read in {record['seconds']:.1f} s"
    ]
    if record["unreadable"]:
        reasons = ", ".join(f"{count} {kind}" for kind, count in record["unreadable"].items())
        lines.append(f"not counted: {reasons}")
    commonest = [
        (row["image"], f"{row['images']:,}", str(row["questions"]), str(row["image_tokens"]), f"{row['total_bytes']:,}")
        for row in record["commonest"]
    ]
    lines += ["", *_table(("size", "images", "questions", "image tokens", "KV bytes"), commonest), ""]
    means = [
        ("this model, mean of a request", record["mean_total_bytes"]),
        ("the same, largest", record["largest_total_bytes"]),
        ("unfinished windows, beside, mean", record["mean_unfinished_window_bytes"]),
        ("mean, the image not shared", record["mean_total_bytes_unshared"]),
        ("same backbone, uncompressed, bf16", record["mean_uncompressed_bf16_bytes"]),
        *((peer["name"], peer["mean_bytes"]) for peer in record["peers"]),
    ]
    ours = record["mean_total_bytes"]
    rows = [(name, f"{round(bytes_):,}", f"{bytes_ / ours:.1f}") for name, bytes_ in means]
    lines += _table(("KV bytes of an image with its questions", "", "ratio"), rows)
    if "fit" in record:
        lines += ["", *_fit_lines(record["fit"])]
    if "estimate" in record:
        lines += ["", estimate_line(record["estimate"])]
    return "\n".join(lines)


def resolutions_report(rows: list[dict[str, Any]], larger: int) -> str:
    """The ratio over resolution, for the model and for the variant with a larger token budget."""
    cells = [
        (
            row["image"],
            *(
                str(row[prefix + name])
                for prefix in ("", "larger_")
                for name in ("image_tokens", "csa_entries", "same_tokens_ratio", "ratio", "pixels_per_entry")
            ),
            str(row["peer_tokens"]),
        )
        for row in rows
    ]
    names = ("tokens", "entries", "x raw", "x peer", "px/entry")
    header = ("size", *names, *(f"{larger}x {name}" for name in names), "peer tokens")
    note = f"x raw: same backbone uncompressed in bf16; x peer: {rows[0]['peer']} with its own image tokens"
    return "\n".join([*_table(header, cells), note])


def estimate_line(estimate: dict[str, Any]) -> str:
    rate = estimate["answers_per_second"]
    line = f"{estimate['answers']:,} answers at {rate:,.1f}/s: {_amount(estimate['hours'])} hours"
    if estimate["cost"] is not None:
        price, paid = estimate["price_per_gpu_hour"], estimate["gpus"]
        line += f", {_amount(estimate['cost'])} at {price:g} an hour for each of {paid:g}"
        line += " GPUs" if estimate["run_used_gpus"] else " machines (the run used no GPU)"
    return line


def _amount(value: float) -> str:
    """Two decimals, or three significant digits of what is smaller than one."""
    return f"{value:,.2f}" if value >= 1 else f"{value:.3g}"


def _fit_lines(fit: dict[str, Any]) -> list[str]:
    rows = [
        (name.removeprefix("requests_").replace("_", " "), f"{count:,}")
        for name, count in fit.items()
        if name.startswith("requests_")
    ]
    header = (f"requests that fit {fit['memory_bytes'] / 1e9:g} GB of KV cache", "")
    return [*_table(header, rows), f"limited by: {fit['limited_by']}"]


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, all but the first to the right."""
    grid = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(row[column]) for row in grid) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *others = row
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    return [line(grid[0]), "-" * (sum(widths) + 2 * (len(widths) - 1)), *map(line, grid[1:])]
