"""Primitives mode: whether an answer should point, and the words that make a checkpoint do so.

The paper's model points when it is told to. A job or a question says `on`, `off` or `auto`; `auto` chooses from the
question's words, by a table that one can read. What then stands in the prompt is the checkpoint's own: its side file
`primitives.json`, next to config.json, has any of

    {"on": "{question} Mark what you see.", "off": "{question}", "always": false}

Without it nothing is added to a question. `always` is for checkpoints that know no other way to answer. Where an answer
should not point, the grammar keeps every primitive out of it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, NamedTuple, get_args

PrimitivesMode = Literal["on", "off", "auto"]
SIDE_FILE = "primitives.json"
_SLOT = "{question}"


class Decision(NamedTuple):
    """Whether to point, and why: a few words for the answer row."""

    point: bool
    reason: str


class _Rule(NamedTuple):
    reason: str
    point: bool
    phrases: tuple[str, ...]


_WHOLE = "(?:image|picture|photo|photograph|scene|screenshot|painting|drawing|page|document|shot|poster)"

# Read from the top; the first rule with a phrase in the question decides. A phrase is words; " .. " stands for up to
# six words between, "a/b" for either word.
_RULES = (
    _Rule("asks to navigate", True, (
        "maze", "labyrinth", "route", "way out", "way through", "way from", "path from", "path to", "path between",
        "shortest path", "navigate", "get from .. to", "get to", "reach the",
    )),
    _Rule("asks to trace", True, (
        "trace", "follow the", "lead to", "leads to", "does .. lead", "connected", "does .. end", "at the end of",
        "other end", "go to", "goes to",
    )),
    _Rule("asks to count", True, (
        "how many", "count", "counts", "number of", "tally", "quantity of",
    )),
    _Rule("asks where", True, (
        "where", "where's", "whereabouts", "locate", "localise/localize", "location", "position", "point to/at/out",
        "pinpoint", "bounding", "coordinates", "a box around", "outline", "detect", "segment", "highlight", "mark",
        "spot", "in what/which corner/part/area", "which area/part/corner", "circle the", "indicate",
    )),
    _Rule("asks to read", True, (
        "read", "transcribe", "written", "printed", "does .. say", "price", "cost", "costs", "how much is/are/for",
        "text", "word", "serial", "total", "expire", "expires", "expiry", "licence", "license", "plate number",
        "the clock", "what number", "phone number", "model number", "brand name", "the name on", "headline", "extract",
        "message", "what date", "which date", "opening hours", "the address", "the value", "thermometer", "spell",
    )),
    _Rule("asks about the whole image", False, (
        "describe", "description", "caption", "title", "alt text", "summary", "summarise/summarize", "overview",
        "tell me about", "hashtags", "keywords", "story", "happening", "going on", "classify", "rate", "category",
        "mood", "emotion", "feeling", "style", "genre", "season", "weather", "time of day", "era", "audience",
        "what kind", "what type", "what language", "camera angle", "country", "which room",
    )),
    _Rule("asks which one", True, (
        "which", "who", "who's", "left of", "right of", "left side", "right side", "next to", "beside", "behind",
        "in front of", "between", "under", "below", "above", "on top of", "nearest", "closest", "largest", "biggest",
        "smallest", "tallest", "shortest", "cheapest", "most expensive",
    )),
    _Rule("asks to find", True, ("find",)),
)  # fmt: skip
_ABOUT_IT_ALL = re.compile(
    rf"^(?:is|was|has|does|could|can|would|are) (?:this|it|the {_WHOLE}|the (?:lighting|background|colou?rs|style))\b"
    rf"|^(?:is|was|has|does|could|can|would) this {_WHOLE}\b"
)
_CONTAINS = re.compile(r"\b(?:contain|contains|show|shows|have|has|include|includes) (?:a|an|any|some|the)\b")
_A_THING = re.compile(
    r"\b(?:is|are) (?:there|any|a|an)\b|\bsee (?:a|an|any|the|some)\b|\bany\b|\bvisible\b"
    r"|^does the \w+ (?:have|contain|show|include|wear)\b"
)


def decide(question: str, mode: PrimitivesMode) -> Decision:
    """Whether the answer to an English question should point. ValueError for an unknown mode."""
    if mode not in get_args(PrimitivesMode):
        raise ValueError(f"primitives mode {mode!r}: choose on, off or auto")
    if mode != "auto":
        return Decision(mode == "on", "as asked")
    words = " ".join(re.findall(r"[\w']+", question.lower().replace("’", "'")))
    for rule, pattern in _COMPILED:
        if pattern.search(words):
            return Decision(rule.point, rule.reason)
    if _ABOUT_IT_ALL.search(words) and not _CONTAINS.search(words):
        return Decision(False, "yes or no on the whole image")
    if _A_THING.search(words):
        return Decision(True, "asks whether a thing is there")
    return Decision(False, "nothing in it to point at")


def _compiled(phrase: str) -> str:
    """A phrase of the table as a pattern over lower-case words with single spaces."""
    either = " ".join(f"(?:{word.replace('/', '|')})" if "/" in word else word for word in phrase.split())
    return either.replace(" .. ", r" (?:[\w']+ ){1,6}?")


_COMPILED = [(rule, re.compile(rf"\b(?:{'|'.join(map(_compiled, rule.phrases))})\b")) for rule in _RULES]


@dataclass(frozen=True)
class Trigger:
    """What a checkpoint wants to read when it should point, and when not: templates around `{question}`."""

    on: str = _SLOT
    off: str = _SLOT
    always: bool = False

    @classmethod
    def of_checkpoint(cls, folder: str | Path) -> Trigger:
        """The checkpoint's side file, or no words at all. ValueError for what is not such a file."""
        path = Path(folder) / SIDE_FILE
        if not path.is_file():
            return cls()
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        known = {field.name: bool if field.name == "always" else str for field in fields(cls)}
        for key, value in raw.items() if isinstance(raw, dict) else [(str(raw), None)]:
            if not isinstance(value, known.get(key, type(None))) or value is None:
                raise ValueError(f"{path}: {key} = {value!r}; it may hold on and off, texts, and always, true or false")
            if isinstance(value, str) and _SLOT not in value:
                raise ValueError(f"{path}: {key} = {value!r} lacks {_SLOT}, the place of the question")
        return cls(**raw)

    def decide(self, question: str, mode: PrimitivesMode) -> Decision:
        """As `decide`, unless this checkpoint always points."""
        decision = decide(question, mode)
        return Decision(True, "this checkpoint always points") if self.always else decision

    def words(self, question: str, point: bool) -> str:
        """The question as this checkpoint wants to be asked."""
        return (self.on if point else self.off).replace(_SLOT, question)
