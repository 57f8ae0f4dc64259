"""The ledger of attempts: who was in flight at a death, who was alone, who is given up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger import DEATHS_IN_A_ROW, EnginesKeepDying, Ledger, Suspicion


def ledger(alive: bool = True) -> Ledger:
    return Ledger(1, lambda node: alive)


def test_what_is_finished_is_suspected_of_nothing() -> None:
    book = ledger()
    book.begin("w1", "n", ["a", "b"])
    book.end("w1", ["a", "b"], 2)
    assert book.begin("w2", "n", ["a", "b"]) == {} and book.deaths == 0


def test_all_that_was_in_flight_at_a_death_is_suspect_and_a_second_death_alone_condemns() -> None:
    book = ledger()
    book.begin("w1", "n", ["a", "b", "c"])
    book.end("w1", ["c"], 1)
    assert set(book.begin("w2", "n", ["a", "b"])) == {"a", "b"}
    book.isolate("w2", "a", "decode")  # and b waits
    book.explain("w2", "out of memory")
    suspects = book.begin("w3", "n", ["a", "b"])
    assert (suspects["a"].own_deaths, suspects["b"].own_deaths) == (1, 0)
    book.isolate("w3", "b", "generate")  # b survives
    book.isolate("w3", None)
    book.isolate("w3", "a", "decode")
    suspects = book.begin("w4", "n", ["a"])
    assert suspects["a"].condemned
    error = suspects["a"].as_error()
    assert (error["stage"], error["kind"], error["attempts"]) == ("decode", "killed_worker", 4)
    assert "alone died 2 times" in error["message"] and book.deaths == 3


def test_what_waited_beside_an_image_that_was_alone_stays_innocent() -> None:
    book = ledger()
    book.begin("w1", "n", ["a"])
    book.begin("w2", "n", ["a"])
    book.begin("w2", "n", ["fresh"])
    book.isolate("w2", "a", "generate")
    assert book.begin("w3", "n", ["fresh"]) == {}


def test_a_node_that_is_gone_makes_no_suspects() -> None:
    book = ledger(alive=False)
    book.begin("w1", "n", ["a"])
    assert book.begin("w2", "m", ["a"]) == {} and book.deaths == 0


def test_a_call_that_ray_sends_to_the_same_process_again_is_no_death() -> None:
    book = ledger()
    book.begin("w1", "n", ["a"])
    assert book.begin("w1", "n", ["a"]) == {}


def test_engines_that_die_and_answer_nothing_end_the_run() -> None:
    book = ledger()
    with pytest.raises(EnginesKeepDying, match=r"23 engines died in a row and nothing was answered; the last: no GPU"):
        for n in range(100):
            book.begin(f"w{n}", "n", ["a", "b"])
            book.explain(f"w{n}", "no GPU")
    assert DEATHS_IN_A_ROW + 2 < 23


def test_an_answer_in_between_lets_engines_die_on() -> None:
    book = ledger()
    for n in range(100):
        book.begin(f"w{n}", "n", ["a", "b"])
        if n % 10 == 0:
            book.begin(f"w{n}", "n", ["c"])
            book.end(f"w{n}", ["c"], 1)
    assert book.deaths == 99


def test_an_image_that_is_survived_alone_speaks_for_the_engines() -> None:
    book = ledger()
    for n in range(100):
        book.begin(f"w{n}", "n", ["a", "b"])
        if n % 10 == 5:
            book.isolate(f"w{n}", "a", "generate")
            book.isolate(f"w{n}", None)
    assert book.deaths == 99


def test_suspects_are_known_again_after_the_ledger_was_lost() -> None:
    book = ledger()
    book.begin("w1", "n", ["a", "b"])
    book.begin("w2", "n", ["a"])
    again = Ledger(1, lambda node: True, book.known())
    assert again.begin("w1", "n", ["a", "b"]) == {"a": Suspicion(attempts=2)}


@given(st.sets(st.integers(0, 11)), st.integers(1, 12))
def test_every_run_ends_with_the_deadly_condemned_and_all_others_answered(deadly: set[int], crowd: int) -> None:
    """A model of an actor: suspects one by one, then the others together; a deadly image kills whoever has it."""
    book, waiting, answered, condemned = Ledger(10, lambda node: True), list(range(12)), set(), set()
    for worker in range(1000):
        if not waiting:
            break
        name = f"w{worker}"
        batch = waiting[:crowd]
        suspects = book.begin(name, "n", [str(image) for image in batch])
        survived = True
        for image in batch:
            if str(image) in suspects and not suspects[str(image)].condemned:
                book.isolate(name, str(image), "generate")
                if image in deadly:
                    survived = False
                    break
                book.isolate(name, None)
        if survived and not any(image in deadly and str(image) not in suspects for image in batch):
            gone = {image for image in batch if str(image) in suspects and suspects[str(image)].condemned}
            book.end(name, [str(image) for image in batch], len(batch) - len(gone))
            condemned |= gone
            answered |= set(batch) - gone
            waiting = waiting[crowd:]
    assert (answered, condemned) == (set(range(12)) - deadly, deadly)
    assert book.deaths <= 3 * len(deadly)
