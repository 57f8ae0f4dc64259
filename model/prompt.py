"""The tokenizer and the chat encoding: messages -> the released prompt layout, as text and as token ids.

    BOS system <｜User｜>user<｜Assistant｜>(<think> | </think>)answer EOS <｜User｜>…    no newlines between pieces

Every special token is looked up by its content in the checkpoint's tokenizer.json, so the shipped tokenizer and the
released one (128,000 merges, other ids) serve alike. Text that people write never becomes a special token: a typed
"<｜User｜>" is eight ordinary pieces, not a turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import tokenizers

Mode = Literal["chat", "thinking"]
# {"role", "content"}; the content is a text or a list of {"type": "text", "text"} | {"type": "image_url" | "image"}
Message = Mapping[str, Any]

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
THINK = "<think>"
END_THINK = "</think>"
IMAGE = "<｜deepseek_image｜>"
REF, END_REF = "<｜ref｜>", "<｜/ref｜>"
BOX, END_BOX = "<｜box｜>", "<｜/box｜>"
POINT, END_POINT = "<｜point｜>", "<｜/point｜>"

BLOCK_JOINT = "\n\n"  # between the blocks of one message's content
NUMBERS = 1000  # coordinates are the integers 0..999
_PRIMITIVE_TAG = re.compile(f"{REF}|{END_REF}|{BOX}|{END_BOX}|{POINT}|{END_POINT}")


class Tokenizer:
    """A checkpoint's tokenizer.

    `path` is a tokenizer.json or the checkpoint folder that holds it. ValueError names what the file lacks: a special
    token of the template, or an integer 0..999 that is not a single token.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"no tokenizer at {path}: give a tokenizer.json or the checkpoint folder that holds one")
        document = json.loads(path.read_text(encoding="utf-8"))
        self._full = tokenizers.Tokenizer.from_file(str(path))
        self._specials = {token.content: i for i, token in self._full.get_added_tokens_decoder().items()}
        # Without the added tokens no input can produce one, whether or not the file flags them as special.
        plain = {**document, "added_tokens": [], "post_processor": None}
        self._plain = tokenizers.Tokenizer.from_str(json.dumps(plain))
        self.bos_id = self.special_id(BOS)
        self.eos_id = self.special_id(EOS)
        self.user_id = self.special_id(USER)
        self.assistant_id = self.special_id(ASSISTANT)
        self.think_id = self.special_id(THINK)
        self.end_think_id = self.special_id(END_THINK)
        self.image_id = self.special_id(IMAGE)
        self.ref_id, self.end_ref_id = self.special_id(REF), self.special_id(END_REF)
        self.box_id, self.end_box_id = self.special_id(BOX), self.special_id(END_BOX)
        self.point_id, self.end_point_id = self.special_id(POINT), self.special_id(END_POINT)
        self.number_ids = [self.piece_id(str(number)) for number in range(NUMBERS)]

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest token id; a model's embedding may have more rows, never fewer."""
        return max(self._full.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of every added token of the file: what ordinary text never contains."""
        return frozenset(self._specials.values())

    def special_id(self, content: str) -> int:
        """Id of the special token with this exact text; ValueError when the file has none."""
        if content not in self._specials:
            raise ValueError(f"the tokenizer has no special token {content}: use a checkpoint of this model family")
        return self._specials[content]

    def piece_id(self, text: str) -> int:
        """Id of the one ordinary token that `text` becomes; ValueError when it takes several."""
        ids = self.encode_plain(text)
        if len(ids) != 1:
            raise ValueError(f"the tokenizer splits {text!r} into {len(ids)} tokens where the grammar needs one")
        return ids[0]

    def ordinary_tokens(self) -> dict[int, bytes]:
        """Every token that is not special, by id, as the bytes it stands for."""
        byte_of = {letter: byte for byte, letter in enumerate(byte_letters())}
        tokens = {}
        for piece, token_id in self._full.get_vocab(with_added_tokens=False).items():
            if token_id not in self.special_ids:
                letters_only = all(letter in byte_of for letter in piece)
                tokens[token_id] = bytes(map(byte_of.__getitem__, piece)) if letters_only else piece.encode()
        return tokens

    def encode(self, text: str) -> list[int]:
        """Ids of text that we wrote: special strings in it become special tokens. No BOS is added."""
        return self._full.encode(text, add_special_tokens=False).ids

    def encode_plain(self, text: str) -> list[int]:
        """Ids of text that anybody wrote: special strings in it are ordinary bytes."""
        return self._plain.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens kept, since primitives are made of them."""
        return self._full.decode(list(ids), skip_special_tokens=False)

    def encode_messages(self, messages: Sequence[Message], mode: Mode) -> list[int]:
        """Ids of the prompt that `render` spells, with only the template's own special tokens special.

        An earlier answer of the assistant keeps its primitives' tags; nothing else in any message is special.
        """
        ids: list[int] = []
        text = ""
        for piece, is_special in (*_pieces(messages, mode), ("", True)):
            if not is_special:
                text += piece
                continue
            ids += self.encode_plain(text) if text else []
            ids += [self.special_id(piece)] if piece else []
            text = ""
        return ids

    def encode_question(
        self, question: str, *, image: bool = True, mode: Mode = "thinking"
    ) -> tuple[list[int], list[int]]:
        """The prompt of one question in two parts: up to the image placeholder (included), and the rest.

        The first part is the same for all questions of an image: it is prefilled once and forked for each second part.
        Without an image it is BOS and the user mark.
        """
        content = [{"type": "image"}] * image + [{"type": "text", "text": question}]
        ids = self.encode_messages([{"role": "user", "content": content}], mode)
        cut = ids.index(self.image_id if image else self.user_id) + 1
        return ids[:cut], ids[cut:]


def byte_letters() -> list[str]:
    """The printable letter that stands for each byte in a byte-level vocabulary: GPT-2's table."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    letters, moved = [], 0
    for byte in range(256):
        if byte in printable:
            letters.append(chr(byte))
        else:
            letters.append(chr(256 + moved))
            moved += 1
    return letters


def render(messages: Sequence[Message], mode: Mode) -> str:
    """The prompt as one string, for people and for comparison with the released encoder.

    ValueError for an unknown mode, role or content block, or a conversation that ends with the assistant.
    """
    return "".join(piece for piece, _ in _pieces(messages, mode))


def _pieces(messages: Sequence[Message], mode: Mode) -> Iterator[tuple[str, bool]]:
    """The prompt in order as (text, is a special token)."""
    if mode not in ("chat", "thinking"):
        raise ValueError(f"unknown mode {mode!r}: use 'chat' or 'thinking'")
    if not messages or messages[-1].get("role") == "assistant":
        raise ValueError("a prompt needs at least one message and must not end with the assistant's: add a question")
    yield BOS, True
    for index, message in enumerate(messages):
        role = message.get("role")
        if role == "assistant":
            # Reasoning of earlier turns is dropped, as the released encoder does for conversations without tools.
            yield from _answer_pieces(message.get("content"))
            yield EOS, True
        elif role == "user":
            yield USER, True
            yield from _content_pieces(message.get("content"))
        elif role == "system":
            yield _text(message.get("content"), "system"), False
        else:
            raise ValueError(f"unknown role {role!r} in message {index}: use system, user or assistant")
        is_last = index + 1 == len(messages)
        if role != "assistant" and (is_last or messages[index + 1].get("role") == "assistant"):
            yield ASSISTANT, True
            yield (THINK if is_last and mode == "thinking" else END_THINK), True


def _content_pieces(content: object) -> Iterator[tuple[str, bool]]:
    """A user's content: blocks joined by a blank line, an image block as the placeholder."""
    if isinstance(content, str):
        yield content, False
        return
    if not isinstance(content, Sequence):
        raise ValueError(f"a user's content must be a text or a list of blocks, got {type(content).__name__}")
    for index, block in enumerate(content):
        if index:
            yield BLOCK_JOINT, False
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind == "text" and isinstance(block.get("text"), str):
            yield block["text"], False
        elif kind in ("image_url", "image"):
            yield IMAGE, True
        else:
            raise ValueError(f"content block {index} is {block!r}: use a text, image_url or image block")


def _answer_pieces(content: object) -> Iterator[tuple[str, bool]]:
    """An earlier answer: the tags of its primitives are the tokens the model wrote."""
    answer = _text(content, "assistant")
    start = 0
    for tag in _PRIMITIVE_TAG.finditer(answer):
        yield answer[start : tag.start()], False
        yield tag.group(), True
        start = tag.end()
    yield answer[start:], False


def _text(content: object, role: str) -> str:
    """The text blocks of a message that takes no images, joined by blank lines into one text."""
    if isinstance(content, str):
        return content
    blocks: Sequence[Any] = content if isinstance(content, Sequence) else [None]
    if all(isinstance(block, Mapping) and isinstance(block.get("text"), str) for block in blocks):
        return BLOCK_JOINT.join(block["text"] for block in blocks)
    raise ValueError(f"the {role}'s content must be a text or a list of text blocks, got {content!r}")
