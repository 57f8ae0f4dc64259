"""The images in flight, each once: equal pixels share their patches, and their features once seen."""

from __future__ import annotations

import hashlib
import threading
from weakref import WeakValueDictionary

from PIL import Image

from .config import Config
from .image import plan, to_patches
from .runner import Picture


class Pictures:
    """Pictures by their pixels, for as long as a request holds them. Any thread may ask."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._held: WeakValueDictionary[bytes, Picture] = WeakValueDictionary()

    def of(self, image: Image.Image) -> Picture:
        """The picture of an RGB image. Keyed on size and pixels, never on token ids: many images have the same."""
        key = hashlib.blake2b(image.tobytes(), digest_size=24, salt=b"%dx%d" % image.size).digest()
        with self._lock:
            held = self._held.get(key)
        if held is not None:
            return held
        geometry = plan(*image.size, self._config)
        picture = Picture(geometry, to_patches(image, geometry, self._config))
        with self._lock:
            return self._held.setdefault(key, picture)

    @property
    def held(self) -> int:
        """How many are in flight."""
        return len(self._held)
