"""Where the model would put a picture, so that decoders can put it there before it travels."""

from __future__ import annotations

from functools import lru_cache

from model.config import Config
from model.image import plan

from .decoder_process import Canvas


@lru_cache(maxsize=4096)
def canvas_for(width: int, height: int, config: Config) -> Canvas | None:
    """The canvas of a picture of this size, if the model takes a picture of the canvas' size just as it is.

    None when it would resize that again (some very wide ones): such a picture travels whole.
    """
    geometry = plan(width, height, config)
    size = (geometry.canvas_width, geometry.canvas_height)
    again = plan(*size, config)
    if (again.canvas_width, again.canvas_height) != size or again.content != (0, 0, *size):
        return None
    return Canvas(*size, padded=geometry.content != (0, 0, *size))
