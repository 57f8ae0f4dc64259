"""The slow, obvious generate(): one question at a time, no batch, no pages, no fork. The engine must equal it."""

from __future__ import annotations

import torch
from PIL import Image

from .grammar import Grammar
from .image import plan, to_patches
from .prompt import Tokenizer
from .sampling import GREEDY, Sampling, choose
from .vision_language_model import VisionLanguageModel


@torch.inference_mode()
def generate(
    model: VisionLanguageModel,
    tokenizer: Tokenizer,
    grammar: Grammar,
    image: Image.Image,
    question: str,
    max_output_tokens: int,
    pointing: bool = True,
    sampling: Sampling = GREEDY,
    number: int = 0,
) -> list[int]:
    """Token ids of the response to one question about one RGB image, under the grammar; EOS not included.

    `number` is the question's place in its request: what is drawn depends on it.
    """
    prefix, tail = tokenizer.encode_question(question)
    geometry = plan(*image.size, model.config)
    features = model.see(to_patches(image, geometry, model.config)[None], geometry)
    ids = torch.tensor([model.expand(prefix + tail, [geometry], tokenizer.image_id)])
    positions = torch.arange(ids.shape[1])[None]
    hidden, state = model(model.embed_prompt(ids, features), ids, positions, model.empty_state(1))
    place = grammar.start("thinking", pointing)
    response: list[int] = []
    while len(response) < max_output_tokens:
        row = grammar.choice(place, max_output_tokens - len(response)).row
        (token,), _ = choose(model.head(hidden[:, -1]), grammar.table, [row], [sampling.draw(number, len(response))])
        place = grammar.advance(place, token)
        if place.finished:
            break
        response.append(token)
        position = torch.tensor([[ids.shape[1] + len(response) - 1]])
        next_id = torch.tensor([[token]])
        hidden, state = model(model.embed_prompt(next_id), next_id, position, state)
    return response
