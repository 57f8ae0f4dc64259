from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import prompt
from model.prompt import Mode, Tokenizer, render
from model.training.tokenizer import build
from tests.conftest import DEFAULT_CHECKPOINT

CHECKPOINT = Path(prompt.__file__).parent / "checkpoints" / "default"
CASES = json.loads((Path(__file__).parents[1] / "data" / "prompts.json").read_text(encoding="utf-8"))["cases"]
TOKENIZER = Tokenizer(CHECKPOINT)
SPECIAL_TEXTS = sorted(TOKENIZER._specials)
typed_text = st.lists(st.one_of(st.text(max_size=8), st.sampled_from([*SPECIAL_TEXTS, "\n\n", "12", " red"]))).map(
    "".join
)
modes = st.sampled_from(["chat", "thinking"])


@pytest.mark.parametrize("case", CASES)
def test_a_rendered_prompt_equals_the_released_encoders(case: dict[str, Any]) -> None:
    assert render(case["messages"], case["mode"]) == case["prompt"]


@pytest.mark.parametrize("case", CASES)
def test_message_ids_spell_the_golden_prompt(case: dict[str, Any]) -> None:
    ids = TOKENIZER.encode_messages(case["messages"], case["mode"])
    assert TOKENIZER.decode(ids) == case["prompt"]
    assert ids == TOKENIZER.encode(case["prompt"])


def test_several_images_each_become_a_placeholder() -> None:
    image = {"type": "image_url", "image_url": {"url": "x"}}
    content = [image, image, {"type": "text", "text": "Which is larger?"}]
    ids = TOKENIZER.encode_messages([{"role": "user", "content": content}], "chat")
    expected = "<｜deepseek_image｜>\n\n<｜deepseek_image｜>\n\nWhich is larger?"
    assert ids.count(TOKENIZER.image_id) == 2
    assert TOKENIZER.decode(ids) == f"{prompt.BOS}{prompt.USER}{expected}{prompt.ASSISTANT}{prompt.END_THINK}"


@given(text=typed_text, mode=modes)
def test_typed_specials_stay_ordinary_text(text: str, mode: Mode) -> None:
    ids = TOKENIZER.encode_messages([{"role": "system", "content": text}, {"role": "user", "content": text}], mode)
    mark = TOKENIZER.think_id if mode == "thinking" else TOKENIZER.end_think_id
    specials = [i for i in ids if i in TOKENIZER.special_ids]
    assert specials == [TOKENIZER.bos_id, TOKENIZER.user_id, TOKENIZER.assistant_id, mark]
    assert TOKENIZER.decode(TOKENIZER.encode_plain(text)) == text


@given(question=typed_text, image=st.booleans(), mode=modes)
def test_the_two_parts_of_a_question_join_to_its_messages(question: str, image: bool, mode: Mode) -> None:
    content = [{"type": "image"}] * image + [{"type": "text", "text": question}]
    prefix, tail = TOKENIZER.encode_question(question, image=image, mode=mode)
    assert prefix + tail == TOKENIZER.encode_messages([{"role": "user", "content": content}], mode)
    assert prefix == [TOKENIZER.bos_id, TOKENIZER.user_id, TOKENIZER.image_id][: 2 + image]


def test_an_earlier_answer_keeps_its_primitives_but_no_other_special() -> None:
    answer = "<｜ref｜>mug<｜/ref｜><｜box｜>[[1,2,3,4]]<｜/box｜><｜User｜></think>"
    messages = [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "And?"},
    ]
    ids = TOKENIZER.encode_messages(messages, "thinking")
    assert [ids.count(i) for i in (TOKENIZER.ref_id, TOKENIZER.box_id, TOKENIZER.end_box_id)] == [1, 1, 1]
    assert (ids.count(TOKENIZER.user_id), ids.count(TOKENIZER.end_think_id)) == (2, 1)
    assert TOKENIZER.decode(ids) == render(messages, "thinking")


def test_a_system_message_before_the_end_opens_the_assistants_turn() -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."}]
    assert render(messages, "chat") == f"{prompt.BOS}{prompt.USER}HiBe brief.{prompt.ASSISTANT}{prompt.END_THINK}"


@pytest.mark.parametrize(
    ("messages", "mode", "named"),
    [
        ([], "chat", "at least one message"),
        ([{"role": "assistant", "content": "2"}], "chat", "must not end"),
        ([{"role": "tool", "content": "2"}], "chat", "'tool'"),
        ([{"role": "user", "content": "2"}], "fast", "'fast'"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "chat", "audio"),
        ([{"role": "user", "content": None}], "chat", "NoneType"),
        ([{"role": "system", "content": [{"type": "image"}]}, {"role": "user", "content": "2"}], "chat", "system"),
    ],
)
def test_a_prompt_that_cannot_be_encoded_says_why(messages: list[dict[str, Any]], mode: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        TOKENIZER.encode_messages(messages, mode)


def _released_like(tmp_path: Path, **changes: Any) -> Path:
    """The shipped file with its specials at other ids and not flagged special, as some are in the released one."""
    document = json.loads((DEFAULT_CHECKPOINT / "tokenizer.json").read_text(encoding="utf-8"))
    head, tail = document["added_tokens"][:3], document["added_tokens"][3:]
    for token, moved in zip(tail, sorted((token["id"] for token in tail), reverse=True), strict=True):
        token.update(id=moved, special=False)
    document["added_tokens"] = head + tail[::-1]
    document.update(changes)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_special_ids_come_from_the_file_not_from_constants(tmp_path: Path) -> None:
    other = Tokenizer(_released_like(tmp_path))
    messages = [{"role": "user", "content": "<think> <｜User｜> 12 red"}]
    assert other.user_id != TOKENIZER.user_id
    assert other.encode("<｜User｜>") == [other.user_id]
    assert other.special_ids.isdisjoint(other.encode_plain("<think><｜User｜>"))
    assert other.encode_messages(messages, "chat").count(other.user_id) == 1
    assert other.decode(other.encode_messages(messages, "chat")) == render(messages, "chat")
    assert other.vocab_size == TOKENIZER.vocab_size


@pytest.mark.parametrize("missing", [prompt.IMAGE, prompt.END_BOX, prompt.THINK])
def test_a_missing_special_token_is_named(tmp_path: Path, missing: str) -> None:
    document = json.loads(build().to_str())
    kept = [token for token in document["added_tokens"] if token["content"] != missing]
    with pytest.raises(ValueError, match=missing):
        Tokenizer(_released_like(tmp_path, added_tokens=kept))


def test_a_number_of_several_tokens_is_named(tmp_path: Path) -> None:
    document = json.loads(build().to_str())
    model = document["model"]
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) != "345"]
    with pytest.raises(ValueError, match="'345'"):
        Tokenizer(_released_like(tmp_path, model=model))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no tokenizer"):
        Tokenizer(tmp_path)


@given(number=st.integers(0, 999))
def test_number_ids_decode_to_their_number(number: int) -> None:
    assert TOKENIZER.decode([TOKENIZER.number_ids[number]]) == str(number)


@settings(max_examples=30)
@given(ids=st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=6))
def test_ordinary_bytes_are_what_decoding_joins(ids: list[int]) -> None:
    tokens = TOKENIZER.ordinary_tokens()
    ids = [i for i in ids if i in tokens]
    assert TOKENIZER.decode(ids) == b"".join(tokens[i] for i in ids).decode(errors="replace")
