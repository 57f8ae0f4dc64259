"""Builds the tokenizer of the shipped checkpoint: byte-level BPE in the DeepSeek style, about 3,000 tokens.

    python -m model.training.tokenizer FOLDER      writes FOLDER/tokenizer.json, the same bytes every time

The merges are constructed rather than learnt from a corpus, because four things must hold exactly:
every integer 0..999 is one token (a coordinate is one decision of the model), the marks of a coordinate list
are one token each (so that a primitive's grammar is one token per step), the words our tasks use are one
token with and without a leading space (short prompts, one meaning per position), and the digits of a price's
cents and of a code are one token each (a decision is one character that was read, not a pair of them).
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from model.prompt import byte_letters
from model.tasks import pictograms, products

SPECIAL_HEAD = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>")  # ids 0, 1, 2, as released
TASK_NAMES = ("action", "query", "authority", "domain", "title", "read_url")
PRIMITIVE_NAMES = ("ref", "box", "point", "polygon")
SPECIAL_TAIL = (
    "<｜User｜>",
    "<｜Assistant｜>",
    "<think>",
    "</think>",
    "｜DSML｜",
    "<｜latest_reminder｜>",
    *(f"<｜{name}｜>" for name in TASK_NAMES),
    "<｜deepseek_image｜>",
    *(tag for name in PRIMITIVE_NAMES for tag in (f"<｜/{name}｜>", f"<｜{name}｜>")),
)

MARKS = ("[[", "],[", "]]", "\n\n", "...", "  ")

# Digits that are read, neither counted nor measured: two after a point (a price's), two after a letter (a code's).
DIGIT_PATTERN = r"(?<=[\p{L}.])\p{N}|(?<=[\p{L}.]\p{N})\p{N}"
NUMBER_PATTERN = r"\p{N}{1,3}"
# A word takes one leading space (or other separator) along; punctuation runs and line breaks stand apart.
TEXT_PATTERN = r"[^\r\n\p{L}\p{P}\p{S}\p{N}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]+|\s+(?!\S)|\s+"

WORDS = """
a about above absent all an and answer any anything anywhere appear appears are around as at behind below beside
between big black blue bottom box boxes brown but by can cannot centre cheapest circle circles color colors colour
coloured colours contain contains count counted counting cross crosses cyan diamond diamonds different do does down
each eight empty end every everything exactly exist exit far find five for found four from gray green grey has have
heart hearts here hexagon hexagons higher how i image in into is it item items just label large larger last leads
least left less line list locate location look lower many mark marked maze me middle more most name nearest next nine
no none not nothing number object objects of on one only or orange other out oval ovals pair path pentagon pentagons
photo picture pink place please point position positions present price purple reach read rectangle rectangles red
right ring rings row same scene see seven shape shapes shelf show shown side sides single six size small smaller some
spot square squares star stars start step tell ten text than that the them then there these they thing things this
three tiny to top total touch triangle triangles turn two under up us very visible wall was way we what where which
white with word yellow yes you zero
add be closed connected cost costs dead dearest expensive false follow fork get goal half icon its joined lead letter
much prices product quarter reached s say sold solve starting starts think together trace true within written
"""
CAPITALISED = """
A All Any Are Can Count Do Does Find First Follow Give Here How I In Is It List Locate Mark No None Nothing Number One
Please Point Read See Show Tell The Then There They This Two What Where Which Yes
False Name Nearest Of Solve Starting Trace True
B C D E F G H J K L M N P R S T U V W X Y Z
"""
_WORD = re.compile(r"[^\W\d_]+")


def words() -> list[str]:
    """Every word that is a token of its own: the above, and what the suites name, one and many."""
    named = [*pictograms.PLURALS, *pictograms.PLURALS.values()]
    named += [form for kind in products.KINDS for form in (kind, products.plural(kind))]
    nouns = sorted({word for name in named for word in _WORD.findall(name)})
    return list(dict.fromkeys((*WORDS.split(), *CAPITALISED.split(), *nouns)))


def build() -> Tokenizer:
    """The tokenizer: 3 specials, 256 bytes, numbers, marks, words, the other specials, in order of id."""
    letters = byte_letters()
    vocab: dict[str, int] = {}
    for token in (*SPECIAL_HEAD, *(letters[byte] for byte in range(256))):
        vocab[token] = len(vocab)
    merges: list[tuple[str, str]] = []
    for left, right in (*_number_merges(), *_mark_merges(letters), *_word_merges(letters)):
        merges.append((left, right))
        vocab.setdefault(left + right, len(vocab))

    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    patterns = DIGIT_PATTERN, NUMBER_PATTERN, TEXT_PATTERN
    splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    specials = (*SPECIAL_HEAD, *SPECIAL_TAIL)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in specials])
    return tokenizer


def save(folder: Path) -> Path:
    """Writes `folder`/tokenizer.json and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(build().to_str(pretty=False) + "\n", encoding="utf-8")
    return path


def _number_merges() -> list[tuple[str, str]]:
    """Pairs that join 10..99 and 100..999.

    In "345" either "34" or "45" may be joined first, whichever ranks lower; so both ways on to "345" exist. A number
    never starts with a zero ("05" stays two tokens), hence in "305" only "30" can be joined first.
    """
    pairs = [(text[0], text[1]) for text in map(str, range(10, 100))]
    for text in map(str, range(100, 1000)):
        pairs.append((text[:2], text[2]))
        if text[1] != "0":
            pairs.append((text[0], text[1:]))
    return pairs


def _mark_merges(letters: list[str]) -> list[tuple[str, str]]:
    """Left-to-right joins for each mark."""
    pairs: list[tuple[str, str]] = []
    for mark in MARKS:
        spelled = "".join(letters[byte] for byte in mark.encode())
        pairs.extend((spelled[:end], spelled[end]) for end in range(1, len(spelled)))
    return list(dict.fromkeys(pairs))


def _word_merges(letters: list[str]) -> list[tuple[str, str]]:
    """Joins the pair most words share until each word is whole, then joins the space to each word.

    Joining the space last makes "red" and " red" siblings that cost one token more, not two spellings apart.
    """
    known = words()
    spelled = [list(word) for word in known]
    pairs: list[tuple[str, str]] = []
    while counts := Counter(pair for pieces in spelled for pair in pairwise(pieces)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        pairs.append(best)
        spelled = [_join(pieces, best) for pieces in spelled]
    space = letters[ord(" ")]
    return pairs + [(space, word) for word in known]


def _join(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """`pieces` with each neighbouring `pair` made one piece, from the left."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m model.training.tokenizer FOLDER")
    print(save(Path(sys.argv[1])))
