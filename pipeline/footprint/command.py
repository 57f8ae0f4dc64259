"""The command line of `jobs/footprint.py`: an image or a catalog in; KV bytes, what fits, hours and cost out."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from model.config import Config

from ..catalog import open_catalog
from ..images import Limits
from ..settings import BUNDLED_MODEL, Settings
from .backbones import PEERS
from .census import Census, Kind, take_census
from .prediction import CacheKind, Workload, as_record, cost, fitting
from .report import catalog_report, image_report, resolutions_report
from .resolutions import LARGER_BUDGET, plot, resolution_rows

_COMMONEST = 10


def main(argv: Sequence[str]) -> int:
    """Print the report. ValueError: a setting, model, catalog or run record that doesn't fit."""
    options = _parser().parse_args(argv)
    if options.catalog and options.image:
        raise ValueError("give --image or --catalog, not both")
    config = model_config(options.model)
    if options.resolutions or options.plot:
        print(_resolutions(config, options))
        return 0
    record = _of_catalog(config, options) if options.catalog else _of_image(config, options)
    report = catalog_report if options.catalog else image_report
    print(json.dumps(record, indent=1) if options.json else report(record))
    return 0


def model_config(name: str) -> Config:
    """The configuration of a bundled checkpoint by its name, or of a folder. ValueError when there is neither."""
    bundled = BUNDLED_MODEL.parent / name
    if "/" not in name and (bundled / "config.json").is_file():
        return Config.from_file(bundled)
    if not (Path(name) / "config.json").is_file():
        known = ", ".join(sorted(path.parent.name for path in BUNDLED_MODEL.parent.glob("*/config.json")))
        raise ValueError(f"no configuration {name!r}: give a checkpoint folder, or one of {known}")
    return Config.from_file(name)


def estimate(run: dict[str, Any], answers: int, price_per_gpu_hour: float | None) -> dict[str, Any]:
    """Hours for `answers` at the rate of a run record, and their cost. ValueError when the record has no rate."""
    rate = run.get("answers_per_second", 0)
    if not rate:
        raise ValueError("the run record has no answers_per_second: give the run.json of a finished run")
    used = run.get("settings", {})
    gpus = used.get("actors", 1) * used.get("gpus_per_actor", 0)
    paid = gpus or 1  # a run without GPUs had one machine to pay for
    hours = answers / rate / 3600
    return {
        "answers": answers,
        "answers_per_second": rate,
        "hours": hours,
        "gpus": paid,
        "run_used_gpus": bool(gpus),
        "price_per_gpu_hour": price_per_gpu_hour,
        "cost": None if price_per_gpu_hour is None else hours * paid * price_per_gpu_hour,
    }


def catalog_record(
    config: Config, census: Census, load: Workload, seconds: float, memory_bytes: int | None
) -> dict[str, Any]:
    """The mean request of a catalog, its commonest sizes, and what fits. ValueError when no image could be read."""
    if not census.images:
        raise ValueError(f"no image of the catalog could be read: {dict(census.unreadable)}")
    spent = {
        kind: cost(config, kind.width, kind.height, replace(load, questions=kind.questions)) for kind in census.kinds
    }

    def mean(values: dict[Kind, int]) -> float:
        return sum(values[kind] * count for kind, count in census.kinds.items()) / census.images

    means = {
        "mean_total_bytes": mean({kind: one.shared.total_bytes for kind, one in spent.items()}),
        "mean_held_bytes": mean({kind: one.shared.held_bytes for kind, one in spent.items()}),
        "mean_unfinished_window_bytes": mean({k: one.shared.unfinished_window_bytes for k, one in spent.items()}),
        "mean_total_bytes_unshared": mean({kind: one.unshared.total_bytes for kind, one in spent.items()}),
        "mean_held_bytes_unshared": mean({kind: one.unshared.held_bytes for kind, one in spent.items()}),
        "mean_uncompressed_bf16_bytes": mean({kind: one.uncompressed_bf16_bytes for kind, one in spent.items()}),
    }
    peers = {peer.name: mean({kind: one.peer_bytes(peer) for kind, one in spent.items()}) for peer in PEERS}
    record: dict[str, Any] = {
        "images": census.images,
        "answers": census.answers,
        "sizes": len({(kind.width, kind.height) for kind in census.kinds}),
        "seconds": round(seconds, 3),
        "unreadable": dict(census.unreadable),
        "cache": load.cache,
        "commonest": [
            {
                "image": f"{kind.width}x{kind.height}",
                "images": count,
                "questions": kind.questions,
                "image_tokens": spent[kind].image_tokens,
                "total_bytes": spent[kind].shared.total_bytes,
            }
            for kind, count in census.kinds.most_common(_COMMONEST)
        ],
        **means,
        "largest_total_bytes": max(one.shared.total_bytes for one in spent.values()),
        "peers": [{"name": name, "mean_bytes": bytes_} for name, bytes_ in peers.items()],
    }
    if memory_bytes is not None:
        commonest = census.kinds.most_common(1)[0][0]
        record["fit"] = {
            "memory_bytes": memory_bytes,
            "requests_sharing_the_image": fitting(memory_bytes, round(means["mean_held_bytes"])),
            "requests_not_sharing": fitting(memory_bytes, round(means["mean_held_bytes_unshared"])),
            "requests_uncompressed": fitting(memory_bytes, round(means["mean_uncompressed_bf16_bytes"])),
            **{f"requests_{name}": fitting(memory_bytes, round(bytes_)) for name, bytes_ in peers.items()},
            "limited_by": spent[commonest].shared.largest,
        }
    return record


def _of_image(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    width, height = _size(options.image or "756x756")
    load = _workload(options, options.questions or 1)
    record = as_record(cost(config, width, height, load), PEERS, _memory(options))
    return record | _estimated(options, (options.images or 1) * load.questions)


def _of_catalog(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    settings = Settings.of({"catalog": options.catalog, "limit": options.images})
    began = time.perf_counter()
    catalog = open_catalog(settings)
    limits = Limits.of(settings, catalog.root)
    census = take_census(catalog, limits, options.questions)
    load = _workload(options, options.questions or 1)
    record = catalog_record(config, census, load, time.perf_counter() - began, _memory(options))
    return record | _estimated(options, record["answers"])


def _resolutions(config: Config, options: argparse.Namespace) -> str:
    load = _workload(options, options.questions or 1)
    rows = resolution_rows(config, load)
    if options.plot:
        asked = f"{load.text_tokens} text + {load.output_tokens} output tokens, cache {load.cache}"
        plot(rows, options.plot, f"{options.model}: what compression saves, {asked}")
    return json.dumps(rows, indent=1) if options.json else resolutions_report(rows, LARGER_BUDGET)


def _estimated(options: argparse.Namespace, answers: int) -> dict[str, Any]:
    if options.throughput is None:
        return {}
    try:
        run = json.loads(Path(options.throughput).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"can't read the run record {options.throughput}: {error}") from None
    return {"estimate": estimate(run, answers, options.price_per_gpu_hour)}


def _workload(options: argparse.Namespace, questions: int) -> Workload:
    return Workload(options.text_tokens, options.output_tokens, questions, options.cache)


def _memory(options: argparse.Namespace) -> int | None:
    return None if options.memory_gb is None else int(options.memory_gb * 1e9)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ValueError(f"--image is WIDTHxHEIGHT in pixels, such as 756x756, got {text!r}")
    return int(width), int(height)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="footprint.py",
        description="What an image with its questions costs in KV cache bytes, how many fit a card, and beside what.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", default="default", metavar="NAME", help="bundled configuration or checkpoint folder [default]")
    add("--image", metavar="WxH", help="size of one image in pixels [756x756]")
    add("--catalog", metavar="PATH", help="a catalog instead, as for catalog_qa.py; only headers are read")
    add("--images", type=int, metavar="N", help="how many such images to reckon with; of a catalog, the first N")
    add("--questions", type=int, metavar="N", help="questions of each image [1, or those of the catalog]")
    add("--text-tokens", type=int, default=64, metavar="N", help="of one question's prompt, without the image [64]")
    add("--output-tokens", type=int, default=64, metavar="N", help="longest response [64]")
    add("--cache", choices=get_args(CacheKind), default="bf16", help="type of the cache's entries [bf16]")
    add("--memory-gb", type=float, metavar="X", help="how many requests fit X GB (10^9 bytes) of KV cache")
    add("--throughput", metavar="run.json", help="run record to take the answers per second from: hours")
    add("--price-per-gpu-hour", type=float, metavar="X", help="with --throughput: cost, in the price's currency")
    add("--resolutions", action="store_true", help="the ratio from 80x80 to 4000x3000, as a table")
    add("--plot", metavar="FILE.png", help="the same as a picture")
    add("--json", action="store_true", help="everything, for programs")
    return parser
