"""What Ray's processor is given for a catalog's questions, and what is kept of what it says."""

from __future__ import annotations

import pytest
from PIL import UnidentifiedImageError

from pipeline.speed.ray_llm_peer import asked, rows_of, told
from tests.pipeline.pictures import encoded, picture


def test_each_question_is_a_row_with_the_image_and_a_chat() -> None:
    image = {"image_id": "i", "image": encoded(picture(50, 40)), "questions": ["Where?", "How many?"]}
    rows = list(rows_of(image))
    assert [row["id"] for row in rows] == ["i/0", "i/1"]
    given = asked(rows[1], {"max_tokens": 3})
    assert given["messages"][0]["content"][1] == {"type": "text", "text": "How many?"}
    assert given["multimodal_data"]["image"].size == (50, 40) and given["sampling_params"] == {"max_tokens": 3}


def test_a_broken_image_raises_as_it_would_for_a_user_who_did_not_expect_it() -> None:
    with pytest.raises(UnidentifiedImageError):
        asked({"id": "i/0", "image": b"no image", "question": "?"}, {})


def test_an_error_is_kept_beside_an_empty_answer() -> None:
    kept = told({"id": "i/0", "generated_text": "", "num_generated_tokens": 0, "__inference_error__": "ValueError"})
    assert (kept["id"], kept["error"], kept["tokens"]) == ("i/0", "ValueError", 0)
