"""Images that kill their decoder, and the planted Pillow in it that obeys them.

`plant` writes a sitecustomize, which every Python that has the folder on its path imports; it acts in decoder
processes alone, and only on a JPEG whose comment says what to do.
"""

from __future__ import annotations

from pathlib import Path

from tests.pipeline.pictures import encoded, picture

_PLANTED = """
import sys

if "pipeline.decoder_process" in sys.orig_argv:
    import ctypes, os
    from PIL import JpegImagePlugin

    honest = JpegImagePlugin.JpegImageFile.load

    def load(self):
        order = self.info.get("comment", b"")
        if order == b"segfault":
            ctypes.string_at(0)
        elif order == b"exit":
            os._exit(3)
        elif order == b"babble":
            for fd in range(3, 32):
                try:
                    os.write(fd, bytes([255]) * 9)
                except OSError:
                    pass
            os._exit(3)
        elif order == b"hang":
            while True:
                pass
        elif order == b"eat":
            eaten = []
            while True:
                eaten.append(bytearray(16 << 20))
        elif order.startswith(b"once:") and not os.path.exists(order[5:]):
            os.mkdir(order[5:])
            ctypes.string_at(0)
        return honest(self)

    JpegImagePlugin.JpegImageFile.load = load
"""


def plant(folder: Path) -> Path:
    """The folder, which belongs on the path of the Python that starts decoders."""
    (folder / "sitecustomize.py").write_text(_PLANTED)
    return folder


def killer(order: str) -> bytes:
    """Makes its decoder segfault | exit | babble | hang | eat | once:FOLDER (a segfault unless that exists)."""
    return encoded(picture(), "JPEG", comment=order.encode())
