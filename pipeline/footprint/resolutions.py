"""How the compression holds up from small images to large ones: a table, and a plot of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from model.config import Config

from .backbones import PEERS
from .prediction import Workload, cost

SIZES = (
    *((80, 80), (224, 224), (384, 384), (512, 512), (640, 480), (756, 756), (1024, 1024), (1280, 720)),
    *((1920, 1080), (2048, 2048), (4000, 500), (3000, 3000), (4000, 3000)),
)
LARGER_BUDGET = 4  # times the image tokens, for the variant


def resolution_rows(config: Config, workload: Workload) -> list[dict[str, Any]]:
    """One row for each size of SIZES: tokens, bytes and ratios, for the model and for one with a larger token budget.

    `ratio` is the first peer's bytes, with its own image tokens, over ours; `same_tokens_ratio` the same backbone's
    without compression, in bf16; `pixels_per_entry` pixels of the image as given over its CSA entries.
    """
    larger = replace(config, vision_max_n_token=LARGER_BUDGET * config.vision_max_n_token)
    peer = PEERS[0]
    rows = []
    for width, height in SIZES:
        row: dict[str, Any] = {"image": f"{width}x{height}", "pixels": width * height, "peer": peer.name}
        for prefix, variant in (("", config), ("larger_", larger)):
            spent = cost(variant, width, height, workload)
            total = spent.shared.total_bytes
            row |= {
                f"{prefix}image_tokens": spent.image_tokens,
                f"{prefix}csa_entries": spent.csa_entries,
                f"{prefix}total_bytes": total,
                f"{prefix}ratio": round(spent.peer_bytes(peer) / total, 2),
                f"{prefix}same_tokens_ratio": round(spent.uncompressed_bf16_bytes / total, 2),
                f"{prefix}pixels_per_entry": round(width * height / spent.csa_entries),
            }
            row["peer_tokens"] = peer.image_tokens(width, height)
        rows.append(row)
    return rows


def plot(rows: list[dict[str, Any]], path: str, title: str) -> None:
    """Write the two ratios over the image's pixels as a PNG."""
    import matplotlib

    matplotlib.use("Agg")  # no display is needed to write a file
    from matplotlib import pyplot

    rows = sorted(rows, key=lambda row: row["pixels"])
    megapixels = [row["pixels"] / 1e6 for row in rows]
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for name, label, style in (
        ("ratio", f"{rows[0]['peer']}, its own image tokens", "o-"),
        ("larger_ratio", f"the same, {LARGER_BUDGET}x the token budget", "o--"),
        ("same_tokens_ratio", "same backbone uncompressed, bf16", "s-"),
        ("larger_same_tokens_ratio", f"the same, {LARGER_BUDGET}x the token budget", "s--"),
    ):
        axes.plot(megapixels, [row[name] for row in rows], style, label=label)
    axes.set(xscale="log", yscale="log", xlabel="megapixels of the image", ylabel="KV bytes / ours", title=title)
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})  # nothing of the machine in the file
    pyplot.close(figure)
