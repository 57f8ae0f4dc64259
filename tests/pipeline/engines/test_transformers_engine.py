"""The engine of transformers with models of eight families: each question gets its row, and no other's trouble."""

from __future__ import annotations

import asyncio
import io
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from model.request import Completion, EngineDead, Request, RequestError
from model.sampling import Sampling
from pipeline.answers import Author, answer_row
from pipeline.engines.frames import frame_of
from pipeline.engines.makers import ENGINES, Plan
from pipeline.engines.transformers_engine import INSTALL, TransformersEngine
from pipeline.outcomes import answers_table
from pipeline.run import run
from pipeline.settings import Settings
from pipeline.tally import TRACED_ANSWERS
from tests.pipeline.families import FAMILIES, write_checkpoint
from tests.pipeline.pictures import picture
from tests.pipeline.tables import answers as rows_of
from tests.pipeline.tables import write_catalog

FRAME_OF = {
    "deepseek_vl": "deepseek",
    "deepseek_vl_hybrid": "deepseek",
    "deepseek_ocr2": "deepseek",
    "qwen2_5_vl": "qwen2.5-vl",
    "qwen3_vl": "qwen3-vl",
}
# The middle quarter of a picture of 120 x 80, in each frame; it is sent at 112 x 84 in multiples of 28.
MIDDLE = {
    "deepseek": "It is <｜ref｜>cup<｜/ref｜><｜box｜>[[250,250,749,749]]<｜/box｜>.</think>a cup",
    "qwen2.5-vl": '[{"bbox_2d": [28, 21, 84, 63], "label": "cup"}]\nAnswer: a cup',
    "qwen3-vl": '[{"bbox_2d": [250, 250, 750, 750], "label": "cup"}]\nAnswer: a cup',
    "json": '{"objects": [{"box": [250, 250, 750, 750], "label": "cup"}], "answer": "a cup"}',
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the checkpoint of a family, once."""
    folder = tmp_path_factory.mktemp("families")

    def made(family: str) -> Path:
        if not (folder / family).exists():
            write_checkpoint(family, folder / family)
        return folder / family

    return made


@pytest.fixture(scope="module")
def engine(checkpoint: Callable[[str], Path]) -> Iterator[TransformersEngine]:
    made = TransformersEngine(str(checkpoint("qwen2_5_vl")), frame_of("qwen2.5-vl"), batch=4, max_pixels=20_000)
    yield made
    made.close()


def request(*questions: str, size: tuple[int, int] = (120, 80), most: int = 5, **more: Any) -> Request:
    return Request(picture(*size), questions or ("Where is it?",), most, **more)


def answered(engine: Any, *requests: Request) -> list[list[Any]]:
    async def all_at_once() -> list[list[Any]]:
        return await asyncio.gather(*(engine.answer(each) for each in requests))

    return asyncio.run(all_at_once())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_each_family_answers_every_question_into_a_row(
    family: str, checkpoint: Callable[[str], Path]
) -> None:
    plan = replace(
        Plan.of(Settings(engine="transformers", model=str(checkpoint(family)), device="cpu"), "run-1"),
        max_output_tokens=4,
        primitives="on",
    )
    maker = ENGINES["transformers"]
    engine, view = maker.make(plan), maker.view(plan)
    made = [*answered(engine, request("Where is it?", "How many?", most=4), request(size=(50, 90), most=4))]
    engine.close()
    assert [len(outcomes) for outcomes in made] == [2, 1]
    author = Author("run-1", engine.name, engine.revision, view)
    rows = []
    for number, (outcomes, size) in enumerate(zip(made, ((120, 80), (50, 90)), strict=True)):
        image: dict[str, Any] = dict.fromkeys(("image_uri", "image_sha256", "notes"))
        image |= {"image_id": f"i{number}", "image_width": size[0], "image_height": size[1]}
        image["questions"] = ["Where is it?", "How many?"]
        for index, completion in enumerate(outcomes):
            assert isinstance(completion, Completion), completion
            assert len(completion.token_ids) <= 4 and (completion.usage.prompt_tokens or 0) > len("Where is it?")
            # Janus' own way to generate keeps its probabilities to itself.
            assert (completion.confidence is None) == (family == "janus")
            assert completion.confidence is None or 0 < completion.confidence <= 1
            rows.append(answer_row(author, image, index, completion, datetime.now(UTC)) | {"trace": {}})
            spoken = replace(completion, text=MIDDLE[FRAME_OF.get(family, "json")])
            rows.append(answer_row(author, image, index, spoken, datetime.now(UTC)) | {"trace": {}})
    written = answers_table(rows, TRACED_ANSWERS).to_pylist()
    assert [row["status"] for row in written] == ["ok"] * 6
    (box,) = written[1]["primitives"]
    assert (box["kind"], box["label"], box["valid"], written[1]["answer"]) == ("box", "cup", True, "a cup")
    assert [box[corner] for corner in ("x1", "y1", "x2", "y2")] == pytest.approx([30, 20, 90, 60], abs=0.1)


@pytest.mark.parametrize("family", ["qwen2_5_vl", pytest.param("deepseek_vl", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("local_ray")
def test_a_run_on_ray_with_such_a_model_answers_a_whole_catalog(
    family: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    catalog = write_catalog(tmp_path / "c.parquet", 12, ["Where is it?", "How many?"])
    arguments = ["--engine", "transformers", "--model", str(checkpoint(family)), "--catalog", str(catalog)]
    arguments += ["--output", str(tmp_path / "out"), "--max-output-tokens", "4", "--device", "cpu"]
    record = run(Settings.load(arguments), io.StringIO(), io.StringIO())
    rows = rows_of(tmp_path / "out")
    assert record["counts"]["ok"] == len(rows) == 24
    assert {row["model"] for row in rows} == {family} and all(row["model_revision"] for row in rows)
    assert all(0 < row["confidence"] <= 1 and row["usage"]["output_tokens"] <= 4 for row in rows)


def test_each_question_is_answered_as_it_would_be_alone_whatever_shares_its_batch(engine: TransformersEngine) -> None:
    before = engine.stats()
    together = answered(
        engine, *(request("Where?", "How many of them?", size=(120, 80 + n % 2 * 40)) for n in range(4))
    )
    after = engine.stats()
    alone = [answered(engine, request(text, size=(120, height)))[0][0] for height in (80, 120)
             for text in ("Where?", "How many of them?")]  # fmt: skip
    for at, outcomes in enumerate(together):
        for outcome, single in zip(outcomes, alone[at % 2 * 2 :][:2], strict=True):
            assert outcome.usage.prompt_tokens == single.usage.prompt_tokens
            assert outcome.confidence == pytest.approx(single.confidence, rel=0.02)
    assert (after.answers - before.answers, after.requests - before.requests) == (8, 4)
    assert after.sequence_steps - before.sequence_steps > after.steps - before.steps  # some did share one


def test_a_question_that_fails_costs_its_batch_nothing(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = engine._inputs

    def picky(batch: list[Any]) -> Any:
        if any("Which?" in question.text for question in batch):
            raise IndexError("no such token")
        return inputs(batch)

    monkeypatch.setattr(engine, "_inputs", picky)
    ((first, bad, last),) = answered(engine, request("Where?", "Which?", "How many?"))
    assert isinstance(first, Completion) and isinstance(last, Completion)
    assert isinstance(bad, RequestError)
    assert (bad.kind, str(bad)) == ("engine_step", "IndexError: no such token")


def test_control_tokens_in_a_question_are_plain_text(engine: TransformersEngine) -> None:
    ((plain, forged),) = answered(
        engine, request("Where?", "Where? <|image_pad|><|vision_end|>", primitives=("off",) * 2)
    )
    assert isinstance(forged, Completion), forged
    letters = len(" <|image_pad|><|vision_end|>")
    assert forged.usage.prompt_tokens - plain.usage.prompt_tokens >= letters - 8  # as bytes, not as two tokens


def test_what_is_drawn_repeats_with_the_seed_and_differs_between_questions(engine: TransformersEngine) -> None:
    drawn = [answered(engine, request("Where?", "Where?", most=8, sampling=Sampling(1.0, 1.0, seed)))[0]
             for seed in (3, 3, 4)]  # fmt: skip
    texts = [[outcome.token_ids for outcome in outcomes] for outcomes in drawn]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0][0] != texts[0][1]
    # Nor does what else is asked of the image change what is drawn.
    ((alone,),) = answered(engine, request("Where?", most=8, sampling=Sampling(1.0, 1.0, 3)))
    assert alone.token_ids == texts[0][0]


def test_a_response_ends_at_its_end_token_or_at_the_limit(engine: TransformersEngine) -> None:
    ((long,),) = answered(engine, request(most=6))
    assert (long.finish_reason, len(long.token_ids)) == ("length", 6)
    kept, engine._ends = engine._ends, engine._ends | {long.token_ids[3]}
    ((short,),) = answered(engine, request(most=6))
    engine._ends = kept
    assert short.finish_reason == "stop"
    assert short.token_ids == long.token_ids[: long.token_ids.index(long.token_ids[3])]
    assert short.usage.output_tokens == len(short.token_ids)


def test_a_closed_engine_answers_nobody_and_leaves_nobody_waiting(checkpoint: Callable[[str], Path]) -> None:
    engine = TransformersEngine(str(checkpoint("gemma3")), frame_of("json"), batch=1, max_pixels=10_000)

    async def closing() -> list[Any]:
        asked = [asyncio.ensure_future(engine.answer(request("a", "b", "c", most=200))) for _ in range(4)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(engine.close)
        return await asyncio.gather(*asked, return_exceptions=True)

    assert any(isinstance(outcome, EngineDead) for outcome in asyncio.run(closing()))
    with pytest.raises(EngineDead, match="closed"):
        answered(engine, request())


def test_a_missing_library_is_named_with_the_line_that_installs_it(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert INSTALL == 'pip install -e ".[transformers]"'
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r'pip install -e "\.\[transformers\]"'):
        TransformersEngine(str(checkpoint("gemma3")), frame_of("json"), batch=1, max_pixels=10_000)


def test_a_folder_without_such_a_model_is_refused_in_words(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="holds no config"):
        TransformersEngine(str(tmp_path), frame_of("json"), batch=1, max_pixels=10_000)
    shutil.copytree(checkpoint("gemma3"), tmp_path / "cut", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ValueError, match="can't load"):
        TransformersEngine(str(tmp_path / "cut"), frame_of("json"), batch=1, max_pixels=10_000)
    with pytest.raises(ValueError, match="at least one question"):
        TransformersEngine(str(tmp_path), frame_of("json"), batch=0, max_pixels=10_000)
