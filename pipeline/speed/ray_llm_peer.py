"""Ray's own processor for vLLM (`ray.data.llm`) beside us: the same catalog, model and questions, as users write it.

Run by path with a python that has vLLM; it imports nothing of this repository. One argument, JSON: the fields of
`Work`. The last line it prints is JSON: the seconds at which each question was answered, how many failed, and what
ended the run, if anything did.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_BATCH = 32  # rows, Ray's default


@dataclass(frozen=True)
class Work:
    """What is asked of whom. `engine`: vLLM's engine arguments; `sampling`: its sampling parameters; `all_stages`: with
    tokenizing and detokenizing as stages of their own, Ray's defaults, else vLLM does both."""

    catalog: str
    model: str
    engine: dict[str, Any]
    sampling: dict[str, Any]
    all_stages: bool
    cpus: int


def rows_of(image: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row for each question of an image."""
    for number, question in enumerate(image["questions"]):
        yield {"id": f"{image['image_id']}/{number}", "image": image["image"], "question": question}


def asked(row: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """What the processor wants of a row."""
    from PIL import Image

    content = [{"type": "image"}, {"type": "text", "text": row["question"]}]
    return {
        "id": row["id"],
        "messages": [{"role": "user", "content": content}],
        "multimodal_data": {"image": Image.open(io.BytesIO(row["image"])).convert("RGB")},
        "sampling_params": sampling,
    }


def told(row: dict[str, Any]) -> dict[str, Any]:
    """What is kept of an answer."""
    return {
        "id": row["id"],
        "text": row["generated_text"],
        "tokens": row["num_generated_tokens"],
        "error": row.get("__inference_error__", ""),
        "at": time.time(),
    }


def main(argument: str) -> None:
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    work = Work(**json.loads(argument))
    ray.init(address="local", num_cpus=work.cpus, include_dashboard=False, log_to_driver=False)
    config = vLLMEngineProcessorConfig(
        model_source=work.model,
        engine_kwargs=work.engine,
        batch_size=_BATCH,
        concurrency=1,
        placement_group_config={"bundles": [{"CPU": 1}]},  # it would wait for a GPU
        should_continue_on_error=True,
        log_engine_metrics=False,
        tokenize_stage=work.all_stages,
        detokenize_stage=work.all_stages,
    )
    processor = build_processor(config, preprocess=lambda row: asked(row, work.sampling), postprocess=told)
    # In blocks of a batch each, as ours: else all rows would leave at the end, and be prepared by one task.
    rows = ray.data.read_parquet(work.catalog).flat_map(rows_of).repartition(target_num_rows_per_block=_BATCH)
    answers: list[dict[str, Any]] = []
    ended = None
    try:
        for row in processor(rows).iter_rows():
            answers.append(row)
    except Exception as error:  # whatever ends it is a finding
        said = [line for line in str(error).splitlines() if "Error: " in line] or [str(error)]
        ended = f"{type(error).__name__}: {said[-1][:300]}"
    good = [row for row in answers if not row["error"]]
    told_of = {"at": sorted(row["at"] for row in good), "failed": len(answers) - len(good), "ended": ended}
    print(json.dumps(told_of | {"tokens": sum(row["tokens"] for row in good)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
