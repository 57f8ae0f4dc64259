"""What a model says of sampled responses: its logits and log-probabilities at each token that it drew.

A response was drawn under the grammar, so its policy is the model's distribution over the tokens that were allowed:
a token that was forced has probability 1 and teaches nothing. The grammar is replayed to tell which those were.
Shapes: B responses, T tokens, L drawn tokens of all of them (in the order of the rows), V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import Config
from ..grammar import Grammar
from ..prompt import Tokenizer
from ..tasks.suite import Case
from ..vision_language_model import VisionLanguageModel
from . import whole
from .batches import Batch, collate, cost
from .examples import IGNORE, Example, Material, encode_tokens
from .facts import Facts


@dataclass(frozen=True)
class Sample:
    """A sampled response. `rows`: for each of its tokens, the row of allowed ones in the table of its policy's grammar,
    which no other policy shares."""

    example: Example
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Parcel:
    """Responses side by side. `members`: their numbers; `member_L`, `rows_L`: of each drawn token, its response's place
    among them and the row of the grammar's table."""

    batch: Batch
    members: tuple[int, ...]
    member_L: Tensor
    rows_L: Tensor


class Policy:
    """Reads responses as they were drawn: with one tokenizer, under one limit."""

    def __init__(self, config: Config, tokenizer: Tokenizer, max_output_tokens: int, how: whole.How) -> None:
        self.config, self.tokenizer, self.max_output_tokens = config, tokenizer, max_output_tokens
        self.grammar, self.how = Grammar(tokenizer, config.vocab_size), how

    def sample(self, case: Case, ids: Sequence[int]) -> Sample:
        """The sample of a response's tokens."""
        material = Material(case.image, case.question, case.response, Facts())
        place, rows = self.grammar.start("thinking"), []
        for drawn, token in enumerate(ids):
            rows.append(self.grammar.choice(place, max(self.max_output_tokens - drawn, 1)).row)
            place = self.grammar.advance(place, token)
        return Sample(encode_tokens(material, list(ids), self.config, self.tokenizer), tuple(rows))

    def parcels(self, samples: Sequence[Sample], batch_tokens: int, device: torch.device) -> list[Parcel]:
        """All samples, those of one grid and of similar length together, `batch_tokens` or one sample at a time."""
        grids: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, sample in enumerate(samples):
            grids[sample.example.geometry.rows, sample.example.geometry.columns].append(number)
        chunks: list[list[int]] = []
        for numbers in grids.values():
            chunk: list[int] = []
            for number in sorted(numbers, key=lambda each: cost(samples[each].example)):
                if chunk and (len(chunk) + 1) * cost(samples[number].example) > batch_tokens:
                    chunks.append(chunk)
                    chunk = []
                chunk.append(number)
            chunks.append(chunk)
        return [self._parcel(chunk, samples, device) for chunk in chunks]

    def _parcel(self, chunk: list[int], samples: Sequence[Sample], device: torch.device) -> Parcel:
        batch = collate([samples[number].example for number in chunk], self.config)
        rows = [row for number in chunk for row in samples[number].rows]
        lengths = torch.tensor([len(samples[number].rows) for number in chunk])
        member_L = torch.arange(len(chunk)).repeat_interleave(lengths)
        return Parcel(batch.to(device), tuple(chunk), member_L.to(device), torch.tensor(rows))

    def logits(self, model: VisionLanguageModel, batch: Batch) -> Tensor:
        """The logits [L, V] at every drawn token of a batch. The vision tower is left as it is: what the reward says
        of the pixels drowns in what it says of the words, and looking is half the cost."""
        ratio = model.aligner.ratio
        rows, columns = batch.rows * ratio, batch.columns * ratio
        with torch.no_grad():
            features = whole.see(model.vision, batch.patches_BN.float(), batch.seen_BN, rows, columns, self.how)
        cells = whole.align(model.aligner, features, batch.rows, batch.columns, self.how)
        embeddings = model.embed_prompt(batch.ids_BT, cells[:, batch.order])
        hidden, _, _ = whole.forward(model, embeddings, batch.ids_BT, self.how)
        return whole.linear(hidden[batch.labels_BT != IGNORE], model.head.weight, self.how.product_type)

    def log_probabilities(self, model: VisionLanguageModel, parcel: Parcel) -> Tensor:
        """Of each drawn token [L], among those that were allowed in its place."""
        allowed = self.grammar.table[parcel.rows_L].to(parcel.member_L.device)
        logits = self.logits(model, parcel.batch).masked_fill(~allowed, float("-inf"))
        drawn = parcel.batch.labels_BT[parcel.batch.labels_BT != IGNORE]
        return logits.log_softmax(dim=-1).gather(1, drawn[:, None])[:, 0]
