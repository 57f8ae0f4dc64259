"""Rejection: what the experts did well is taught, token for token, and collected once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.training import rejection
from model.training.examples import IGNORE
from model.training.lessons import Lesson
from model.training.rejection import Collection, Rollouts, collect, collected, draw_of
from model.training.rollouts import Prompt, Sampler, write
from tests.conftest import DEFAULT_CHECKPOINT
from tests.model.training.debug import CONFIG, CPU, TOKENIZER, checkpoint, group

LESSON = Lesson("rejection", 2, {}, batch_tokens=600, longest=400)


def test_batches_teach_the_responses_of_all_folders_as_they_were_drawn(tmp_path: Path) -> None:
    folders = [tmp_path / "box", tmp_path / "point"]
    texts = {"counting/easy": "1 in total.</think>1", "maze/easy": "closed</think>False"}
    for folder, (source, text) in zip(folders, texts.items(), strict=True):
        folder.mkdir()
        for seed in range(2):
            write(folder / f"{seed}.jsonl", [group(Prompt(source, seed), text)])
    taught: set[str] = set()
    stream = iter(Rollouts(folders, LESSON, CONFIG, str(DEFAULT_CHECKPOINT), 0))
    for _ in range(6):
        batch = next(stream)
        for labels in batch.labels_BT:
            ids = labels[labels != IGNORE].tolist()
            assert ids.pop() == TOKENIZER.eos_id
            taught.add(TOKENIZER.decode(ids))
    assert taught == set(texts.values())


def test_a_stream_is_the_same_for_a_seed(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [group(Prompt("maze/easy", seed), "") for seed in range(4)])
    first, again, *others = (
        next(draw_of([tmp_path])(LESSON, CONFIG, str(DEFAULT_CHECKPOINT), seed)).ids_BT for seed in (1, 1, 2, 3, 4, 5)
    )
    assert torch.equal(first, again)
    assert any(not torch.equal(first, other) for other in others)  # of a few responses two seeds may take the same


def test_without_one_good_response_there_is_nothing_to_teach(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [])
    with pytest.raises(ValueError, match=r"no response in .* was good; train the experts for longer"):
        draw_of([tmp_path])


def test_an_expert_is_asked_in_portions_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejection, "for_rejection", lambda groups, seed: groups)  # it has learnt nothing yet
    folder, lines = tmp_path / "new" / "box", list[str]()
    sizes = Collection(("maze/easy",), 5, 2, 8, at_once=2)
    arguments = checkpoint(tmp_path / "box" / "checkpoint"), Sampler(DEFAULT_CHECKPOINT, CPU, 8), folder, sizes, 0
    collect(*arguments, lines.append)
    assert [line.split(" prompts, ")[0] for line in lines] == ["box 2/5", "box 4/5", "box 5/5"]
    rows = collected(folder)
    assert len(rows) == 10 and len({prompt.seed for prompt, _ in rows}) == 5
    (folder / "000002.jsonl").unlink()
    collect(*arguments, lines.append)
    assert len(lines) == 4 and collected(folder) == rows
