from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from model.primitives import format_boxes
from model.primitives import parse as parse_primitives
from model.tasks import shapes
from model.tasks.layouts import HELD_OUT_LAYOUTS
from model.tasks.scenes import COLORS, SHAPES, SIZES, Thing, draw
from model.tasks.shapes import KINDS, SPLITS, Case, Split, case, frame_box, judge, plural, pose, response, scene_rng

SEEDS = st.integers(0, 2**63)
WORDS = {"size": SIZES, "color": COLORS, "shape": SHAPES}


@cache
def many() -> tuple[Case, ...]:
    """Cases on small images: what is asked does not depend on the pixels."""
    cases = []
    for seed in range(500):
        rng = scene_rng(seed, "validation")
        scene = draw(rng, width=64, height=64, count=(1, 6))
        cases += [pose(scene, rng, (kind,)) for kind in KINDS]
    return tuple(cases)


def selected(label: str, things: tuple[Thing, ...]) -> list[int]:
    """The things that the label's words are true of, left to right; read from the words alone."""
    wanted = {name: word for word in label.split() for name, words in WORDS.items() if word in words}
    chosen = [i for i, thing in enumerate(things) if all(getattr(thing, n) == v for n, v in wanted.items())]
    return sorted(chosen, key=lambda i: (things[i].box[0], things[i].box[1]))


def boxes_of(a_case: Case) -> list[tuple[int, int, int, int]]:
    return [frame_box(a_case.things[i].box, *a_case.image.size) for i in a_case.targets]


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, split=st.sampled_from(SPLITS), width=st.integers(100, 300), count=st.integers(0, 7))
def test_the_reference_response_judges_as_perfect(seed: int, split: Split, width: int, count: int) -> None:
    a_case = case(seed, split, width, 168, (count, count))
    judged = judge(a_case, response(a_case))
    assert judged.exact and judged.well_formed and judged.predicted == len(a_case.targets)
    if a_case.targets:
        assert judged.mean_iou is not None and judged.mean_iou > 0.97
    else:
        assert judged.mean_iou is None


def test_targets_are_the_things_that_the_label_describes() -> None:
    for a_case in many():
        assert list(a_case.targets) == selected(a_case.label, a_case.things), a_case.label


def test_answers_follow_from_the_targets() -> None:
    for a_case in many():
        n = len(a_case.targets)
        by_kind = {
            "count": str(n),
            "list": str(n),
            "exists": "yes" if n else "no",
            "locate": f"found {n}" if n else "none",
        }
        assert a_case.answer == by_kind[a_case.kind]
        if a_case.kind == "list":
            assert n == len(a_case.things) and a_case.label == "thing"


def test_the_response_points_from_left_to_right_before_it_answers() -> None:
    a_case = next(c for c in many() if len(c.targets) >= 3)
    thinking, answer = response(a_case).split("</think>")
    assert thinking.startswith(f"<｜ref｜>{a_case.label}<｜/ref｜><｜box｜>[[") and answer == a_case.answer
    frames = [primitive.frame for primitive in parse_primitives(thinking)]
    assert frames == boxes_of(a_case) and frames == sorted(frames, key=lambda frame: frame[0])


def test_an_absent_thing_is_thought_of_without_a_box() -> None:
    a_case = next(c for c in many() if c.kind == "count" and not c.targets)
    assert response(a_case) == f"<｜ref｜>{a_case.label}<｜/ref｜>none</think>0"


def test_a_question_names_its_label_in_the_number_that_its_phrase_wants() -> None:
    for a_case in many():
        words = a_case.question.lower().rstrip("?.")
        if a_case.kind == "list":
            continue
        if re.search(r"\b(many|any|all|are|number of|count the)\b", words):
            assert f" {plural(a_case.label)}" in words, a_case.question
        elif re.search(r"\b(is|every)\b|\ba(n)? ", words):
            assert re.search(rf" {a_case.label}( in the image)?$", words), a_case.question
        else:  # "find the cross" and "find the crosses" are both fine
            assert words.endswith((f" the {a_case.label}", f" the {plural(a_case.label)}")), a_case.question
        article = re.search(rf"\b(an?) {a_case.label}\b", words)
        assert article is None or (article[1] == "an") == (a_case.label[0] in "aeiou")


def test_plurals() -> None:
    assert [plural(one) for one in ("red cross", "thing", "box", "large star")] == [
        "red crosses",
        "things",
        "boxes",
        "large stars",
    ]


def test_each_kind_has_at_least_five_phrasings_and_capitals_occur() -> None:
    for kind in KINDS:
        asked = [c for c in many() if c.kind == kind]
        phrasings = {
            c.question.lower().replace(plural(c.label), "X").replace(c.label, "X") for c in asked if c.label != "thing"
        } or {c.question.lower() for c in asked}
        assert len(phrasings) >= 5
        capitals = sum(c.question[0].isupper() for c in asked) / len(asked)
        assert 0.15 < capitals < 0.35


def test_labels_range_from_coarse_to_three_attributes() -> None:
    levels = Counter(
        tuple(name for word in c.label.split() for name in WORDS if word in WORDS[name])
        for c in many()
        if c.kind == "count"
    )
    assert set(levels) == {
        (), ("shape",), ("color",), ("color", "shape"), ("size", "shape"), ("size", "color", "shape"),
    }  # fmt: skip


def test_exists_is_yes_as_often_as_no() -> None:
    answers = Counter(c.answer for c in many() if c.kind == "exists")
    assert 0.44 < answers["yes"] / answers.total() < 0.56


def test_no_count_is_a_safe_guess() -> None:
    answers = Counter(c.answer for c in many() if c.kind == "count")
    assert 0.2 < answers["0"] / answers.total() < 0.32
    assert max(answers.values()) / answers.total() < 0.36
    assert set(answers) == set("0123456")


def test_most_absent_labels_share_a_word_with_the_scene() -> None:
    hard = []
    for a_case in many():
        if not a_case.targets and len(a_case.label.split()) > 1 and "thing" not in a_case.label:
            seen = {word for thing in a_case.things for word in (thing.shape, thing.color)}
            hard.append(any(word in seen for word in a_case.label.split()))
    assert sum(hard) / len(hard) > 0.75


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_present_only_asks_about_what_is_there(seed: int) -> None:
    assert case(seed, "train", 64, 64, (1, 4), present_only=True).targets


def test_an_empty_scene_can_only_be_asked_in_vain() -> None:
    for seed in range(20):
        assert case(seed, "train", 64, 64, (0, 0)).targets == ()
    with pytest.raises(ValueError, match="empty scene"):
        case(0, "train", 64, 64, (0, 0), present_only=True)


def test_splits_and_seeds_never_share_a_scene() -> None:
    scenes = [case(seed, split, 64, 64, (1, 6)).image.tobytes() for split in SPLITS for seed in range(40)]
    assert len(set(scenes)) == len(scenes)


def test_only_the_test_split_uses_the_held_out_layouts() -> None:
    held_out = draw(scene_rng(5, "test"), width=64, height=64, count=(4, 4), layouts=HELD_OUT_LAYOUTS)
    assert case(5, "test", 64, 64, (4, 4)).things == held_out.things
    assert not {*shapes.layouts("train"), *shapes.layouts("validation")} & set(shapes.layouts("test"))


def test_the_same_seed_gives_the_same_case() -> None:
    one, two = (case(11, "train", 168, 168, (1, 6)) for _ in range(2))
    assert one.image.tobytes() == two.image.tobytes()
    assert replace(one, image=two.image) == two


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((0, "dev", 64, 64, (1, 2)), "split"), ((-1, "train", 64, 64, (1, 2)), "seed")],
)
def test_a_wrong_split_or_seed_is_an_error(arguments: tuple[object, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        case(*arguments)  # type: ignore[arg-type]


def test_an_unknown_kind_of_question_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="why"):
        case(0, "train", 64, 64, (1, 2), kinds=("why",))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), shift=st.integers(8, 60))
def test_a_shifted_box_lowers_the_iou(seed: int, shift: int) -> None:
    a_case = case(seed, "train", 64, 64, (1, 3), present_only=True)
    boxes = boxes_of(a_case)
    x1, y1, x2, y2 = boxes[0]
    assume(x2 + shift <= 999)
    moved = format_boxes(a_case.label, [(x1 + shift, y1, x2 + shift, y2), *boxes[1:]])
    judged = judge(a_case, f"{moved}</think>{a_case.answer}")
    assert judged.exact and judged.mean_iou is not None
    assert judged.mean_iou < (judge(a_case, response(a_case)).mean_iou or 0.0)


def test_a_duplicated_box_and_a_missing_box_lower_the_iou() -> None:
    a_case = next(c for c in many() if len(c.targets) == 2)
    boxes = boxes_of(a_case)
    twice = judge(a_case, f"{format_boxes(a_case.label, [boxes[0], *boxes])}</think>{a_case.answer}")
    once = judge(a_case, f"{format_boxes(a_case.label, boxes[:1])}</think>{a_case.answer}")
    assert twice.predicted == 3 and twice.mean_iou == pytest.approx(2 / 3, abs=0.02)
    assert once.predicted == 1 and once.mean_iou == pytest.approx(1 / 2, abs=0.02)


def test_boxes_in_another_order_are_as_good() -> None:
    a_case = next(c for c in many() if len(c.targets) >= 3)
    backwards = f"{format_boxes(a_case.label, boxes_of(a_case)[::-1])}</think>{a_case.answer}"
    assert judge(a_case, backwards).mean_iou == pytest.approx(judge(a_case, response(a_case)).mean_iou)


def test_only_the_answer_after_thinking_counts() -> None:
    a_case = next(c for c in many() if c.kind == "count" and c.targets)
    good = response(a_case)
    assert judge(a_case, good + " \n").exact
    assert not judge(a_case, good + "0").exact
    assert not judge(a_case, a_case.answer).exact
    assert judge(a_case, good.partition("</think>")[0]).exact is False


@pytest.mark.parametrize(
    "broken", ["<｜ref｜>star<｜box｜>[[1,2,3,4]]<｜/box｜></think>1", "<｜box｜>[[1,2", "<｜box｜></think>1"]
)
def test_a_malformed_primitive_is_reported(broken: str) -> None:
    assert not judge(many()[0], broken).well_formed


def test_a_box_where_nothing_was_due_scores_zero() -> None:
    a_case = next(c for c in many() if c.kind == "exists" and not c.targets)
    judged = judge(a_case, f"{format_boxes(a_case.label, [(1, 1, 99, 99)])}</think>no")
    assert judged.exact and judged.mean_iou == 0.0 and judged.predicted == 1


def test_random_text_is_judged_without_an_exception() -> None:
    rng = np.random.default_rng(0)
    pieces = ["<｜ref｜>", "<｜/ref｜>", "<｜box｜>", "<｜/box｜>", "</think>", "[[", "]]", "1", ",", "999", "none"]
    a_case = many()[0]
    for _ in range(300):
        text = "".join(pieces[i] for i in rng.integers(len(pieces), size=12))
        judged = judge(a_case, text)
        assert judged.mean_iou is None or 0.0 <= judged.mean_iou <= 1.0
