"""Examples: a question about an image and its reference response, as the model reads them, with what it is taught.

Shapes: T tokens that are read, P patches, C cells (IMAGE slots) of the image.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..config import Config
from ..image import Geometry, plan, span, to_patches
from ..prompt import END_THINK, Tokenizer
from ..tasks import shapes
from ..tasks.scenes import draw
from ..tasks.suite import Case, Suite, to_frame
from ..tasks.suites import suite_of
from .facts import UNKNOWN, Facts, facts_of, of_things
from .repainting import repainted
from .strangers import with_stranger
from .tags import recoloured
from .targets import DenseTargets, targets_of

IGNORE = -100  # label of a token that is not learnt
NOWHERE = -1  # of a token that need not look at any one cell
CASES = "cases:"  # before the folder of a source of other people's cases
SHAPES_LESSON = "shapes"  # the source that asks all four kinds of question about scenes of shapes
CANVASES = ((168, 168), (252, 252), (320, 240), (240, 320), (300, 200), (200, 300), (320, 180))
_SHAPES_COUNT = (1, 6)
_MOST_TRIES = 100  # of cases for one of a kind
_ELSEWHERE = 200  # between the numbers of a box and of the tag that it may mean, summed up


@dataclass(frozen=True)
class Example:
    """`labels_T`: the next token where it is learnt. `coordinate_T`: that one is a coordinate. `look_T`: the slot of
    the cell that it is about. `from_T`: the slot of the cell that a way has come to. `label_T`: the token read belongs
    to a reference's label; `about_T`: the next one is about the nearest label before it."""

    geometry: Geometry
    patches: Tensor
    ids_T: Tensor
    labels_T: Tensor
    coordinate_T: Tensor
    look_T: Tensor
    from_T: Tensor
    label_T: Tensor
    about_T: Tensor
    patch_targets: DenseTargets
    cell_targets: DenseTargets


@dataclass(frozen=True)
class Material:
    """What an example is made of."""

    image: Image.Image
    question: str
    response: str
    facts: Facts | None  # None: nobody knows what is on the image, so nothing is asked of its places


def material(source: str, seed: int) -> Material:
    """The training case of a source and seed: "shapes", suite/level as in "counting/easy", suite/level/kind as in
    "reading/easy/price", or "cases:FOLDER".

    A folder holds cases as docs/cases.md describes them; a seed takes one of them, whatever their number.
    """
    if source.startswith(CASES):
        return _from_folder(Path(source.removeprefix(CASES)), seed)
    if source == SHAPES_LESSON:
        rng = shapes.scene_rng(seed, "train")
        width, height = CANVASES[int(rng.integers(len(CANVASES)))]
        posed = shapes.pose(draw(rng, width=width, height=height, count=_SHAPES_COUNT), rng)
        return Material(posed.image, posed.question, shapes.response(posed), of_things(posed.things))
    name, _, rest = source.partition("/")
    level, _, kind = rest.partition("/")
    case, question, response, stranger = with_stranger(lambda: _of_kind(suite_of(name), level, kind, seed), seed)
    facts = facts_of(case)
    image = repainted(recoloured(case.image, facts, seed), facts, name, seed)
    return Material(image, question, response, facts.with_strangers([stranger]) if stranger else facts)


def _of_kind(suite: Suite, level: str, kind: str, seed: int) -> Case:
    """The first case from this seed on that asks a question of the kind; any kind where it is ""."""
    for at in range(seed, seed + _MOST_TRIES):
        case = suite.case(at, level, "train")
        if kind in ("", case.kind):
            return case
    raise ValueError(f"no question of the kind {kind!r} in {_MOST_TRIES} cases of {suite.name}/{level}; leave it out")


def _from_folder(folder: Path, seed: int) -> Material:
    lines = _lines(folder)
    case = json.loads(lines[seed % len(lines)])
    answer = case["answer"] if isinstance(case["answer"], str) else case["answer"][0]
    with Image.open(folder / case["image"]) as file:
        image = file.convert("RGB")
    return Material(image, case["question"], case.get("response") or f"{END_THINK}{answer}", None)


@cache
def _lines(folder: Path) -> list[str]:
    path = folder / "cases.jsonl"
    if not path.is_file():
        raise ValueError(f"no cases.jsonl in {folder}; docs/cases.md says what a folder of cases holds")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} holds no case; give a folder with at least one")
    return lines


def encode(made: Material, config: Config, tokenizer: Tokenizer) -> Example:
    """The example of a material."""
    return encode_tokens(made, [*tokenizer.encode(made.response), tokenizer.eos_id], config, tokenizer)


def encode_tokens(made: Material, response: list[int], config: Config, tokenizer: Tokenizer) -> Example:
    """The example of a material with these tokens for its response, which are learnt as they are."""
    geometry = plan(*made.image.size, config)
    prefix, question = tokenizer.encode_question(made.question)
    layout = span(geometry.rows, geometry.columns, len(prefix) - 1)
    prompt = [*prefix[:-1], *(config.vocab_size + kind for kind in layout.types), *question]
    slot_of_cell = {cell: slot for slot, cell in enumerate(layout.order)}

    def slot(x: int, y: int) -> int:
        """The slot of the cell that a point of the frame 0..999 lies in."""
        px, py = _on_canvas(x / 999, y / 999, geometry)
        cell_px = config.vision_patch_size * config.vision_downsample_ratio
        column, row = min(int(px // cell_px), geometry.columns - 1), min(int(py // cell_px), geometry.rows - 1)
        return slot_of_cell[row * geometry.columns + column]

    taught = _Taught(response, tokenizer)
    if made.facts is not None:
        taught.read_along(made.facts, made.image.size, [tokenizer.decode([token]) for token in response])
    look, come = (
        [NOWHERE if point is None else slot(*point) for point in points] for points in (taught.points, taught.come)
    )
    before = len(prompt) - 1  # the last token of the prompt predicts the first of the response
    width, height = geometry.content[2:]
    patch = config.vision_patch_size
    cell = patch * config.vision_downsample_ratio
    dense = []
    for side, rows, columns, owns in (
        (patch, geometry.rows * 3, geometry.columns * 3, False), (cell, geometry.rows, geometry.columns, True)
    ):  # fmt: skip
        scale = (width / geometry.width / (columns * side), height / geometry.height / (rows * side))
        facts = None if made.facts is None else _moved(made.facts, geometry)
        dense.append(targets_of(facts, scale, rows, columns, owns))
    return Example(
        geometry,
        to_patches(made.image, geometry, config),
        torch.tensor((prompt + response)[:-1]),
        torch.tensor([IGNORE] * before + response),
        torch.tensor([False] * before + taught.coordinate),
        torch.tensor([NOWHERE] * before + look),
        torch.tensor([NOWHERE] * before + come),
        torch.tensor([False] * (before + 1) + taught.in_label[:-1]),
        torch.tensor([False] * before + taught.about),
        dense[0],
        _framed(dense[1], geometry, cell).in_order(torch.tensor(layout.order)),
    )


def _on_canvas(x: float, y: float, geometry: Geometry) -> tuple[float, float]:
    """A point in shares of the image, in pixels of the canvas."""
    left, top, width, height = geometry.content
    return left + x * width, top + y * height


def _moved(facts: Facts, geometry: Geometry) -> Facts:
    """Facts in pixels of the image, shifted by the padding at the left and the top, in the same pixels."""
    left, top, width, height = geometry.content
    dx, dy = left * geometry.width / width, top * geometry.height / height
    return facts.moved(dx, dy) if dx or dy else facts


def _framed(cells: DenseTargets, geometry: Geometry, cell_px: int) -> DenseTargets:
    """Cells whose boxes and lines' ends are shares of the image, as its primitives are, and no longer of the grid of
    whole cells."""
    left, top, width, height = geometry.content
    grid = torch.tensor([geometry.columns * cell_px, geometry.rows * cell_px] * 2)

    def framed(shares_N4: Tensor) -> Tensor:
        return (shares_N4 * grid - torch.tensor([left, top] * 2)) / torch.tensor([width, height] * 2)

    return replace(cells, boxes=framed(cells.boxes), leads=framed(cells.leads))


class _Taught:
    """For each token of a response: is it a coordinate, the point that it is about, the last point of a way before it,
    is it in a label, about one."""

    def __init__(self, response: list[int], tokenizer: Tokenizer) -> None:
        value_of = {token: value for value, token in enumerate(tokenizer.number_ids)}
        length = len(response)
        self.coordinate, self.in_label, self.about = [False] * length, [False] * length, [False] * length
        self.points: list[tuple[int, int] | None] = [None] * length
        self.come: list[tuple[int, int] | None] = [None] * length
        self.labels: list[tuple[int, int, list[int]]] = []  # begin and end of a box's label, and its numbers
        opens = {tokenizer.box_id: 4, tokenizer.point_id: 2}
        closes = {tokenizer.end_box_id, tokenizer.end_point_id}
        others = {*opens, tokenizer.ref_id, tokenizer.end_think_id, tokenizer.eos_id}
        labelled = -1  # where the label of the next primitive began
        at, held = 0, 0
        while at < length:
            token = response[at]
            if token == tokenizer.ref_id:
                labelled = at
            elif token in opens:
                size, numbers, begun = opens[token], [], at
                while at < length and response[at] not in closes:
                    if response[at] in value_of:
                        self.coordinate[at] = True
                        numbers.append(value_of[response[at]])
                    if len(numbers) == size:
                        x = (numbers[0] + numbers[-2]) // 2
                        y = (numbers[1] + numbers[-1]) // 2
                        begin = begun if labelled < 0 else labelled + 1
                        if labelled >= 0 and size == 4:
                            self.labels.append((labelled + 1, held, numbers))
                        for k in range(begin, at + 1):
                            self.points[k] = (x, y)
                            self.about[k] = k >= begun and held > 0
                        if size == 2:
                            self.come[at + 1 :] = [(x, y)] * (length - at - 1)
                        begun, numbers, labelled = at + 1, [], -1
                    at += 1
                if size == 2:
                    self._look_around(at + 1, response, others)
            elif token == tokenizer.end_ref_id and labelled >= 0:
                for k in range(labelled + 1, at):
                    self.in_label[k] = True
                held = at
            at += 1

    def _look_around(self, begin: int, response: list[int], ends: set[int]) -> None:
        """Let the words after a way, which say what is seen from its last point, look there."""
        for k in range(begin, len(response)):
            if response[k] in ends:
                return
            self.points[k] = self.come[k]

    def read_along(self, facts: Facts, size: tuple[int, int], texts: list[str]) -> None:
        """Let each token of a price look where its characters are printed, not at the middle of the tag.

        `texts`: what each token of the response says; `size`: the image's, in pixels.
        """
        tags = [(to_frame(fact.box, size), fact) for fact in facts.things if fact.print]
        for begin, end, numbers in self.labels:
            label = texts[begin:end]
            near = [(sum(abs(a - b) for a, b in zip(box, numbers, strict=True)), fact) for box, fact in tags]
            off, fact = min(near, key=lambda pair: pair[0], default=(_ELSEWHERE, None))
            if fact is None or off >= _ELSEWHERE:
                continue
            begins = [0.0, *(at for at, _ in fact.print)]
            middles = [(a + b) / 2 for a, (b, kind) in zip(begins, fact.print, strict=False) if kind != UNKNOWN]
            if sum(map(len, label)) != len(middles):
                continue
            left, top, right, bottom = fact.box
            done = 0
            for k, text in zip(range(begin, end), label, strict=True):
                share = (middles[done] + middles[done + len(text) - 1]) / 2
                x = left + share * (right - left)
                self.points[k] = (round(x / size[0] * 999), round((top + bottom) / 2 / size[1] * 999))
                done += len(text)
