"""Images looked at and decoded in processes that may die: an image that kills, hangs or bloats one gets an error.

One process has one image at a time, so who killed it is known. It is replaced, and an image that killed two is not
tried a third time. Bytes go in and pixels come out through shared memory; a picture that the model would shrink is
shrunk over there, so that a large one costs no more to bring back than a small one.
"""

from __future__ import annotations

import mmap
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

from PIL import Image

from .decoder_process import READY, Canvas, Question, read_answer
from .decoding import Header, ImageError, too_many_bytes

_START_SECONDS = 120.0
_GRACE_SECONDS = 5.0  # after which a process that should have ended itself is killed
_ATTEMPTS = 2  # a process may also be killed for what others did: by the kernel, short of memory
_IMAGES_PER_PROCESS = 2000  # then a new one, whatever may have leaked
_KEPT_SHARED_BYTES = 64 << 20
_STEP = 1 << 20  # in which the shared memory grows
# Memory that decoding may take: of an image's encoded bytes, and of its pixels in the costliest mode and format.
_BYTES_PER_ENCODED, _BYTES_PER_PIXEL = 8, 28
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")


class DecoderPool:
    """At most `processes` of them, started when they are needed. Any thread may call; each call is one image."""

    def __init__(self, processes: int, max_bytes: int, max_pixels: int, seconds: float) -> None:
        self._max_bytes, self._max_pixels, self._seconds = max_bytes, max_pixels, seconds
        self._free: queue.LifoQueue[_Process] = queue.LifoQueue()
        for _ in range(processes):
            self._free.put(_Process(max_pixels))
        self._processes = processes

    def check(self, data: bytes) -> Header:
        """As `decoding.check`, under the pool's limits; ImageError as there, or stage check, crashed or timeout."""
        if len(data) > self._max_bytes:
            raise too_many_bytes(len(data), self._max_bytes)
        found, _ = self._ask("check", data, self._max_pixels, 0, None)
        width, height = found["size"]
        return Header(width, height, tuple(found["notes"]))

    def decode(self, data: bytes, size: tuple[int, int], canvas: Canvas | None = None) -> Image.Image:
        """As `decoding.decode`, on a canvas if one is given. `size`: what `check` said, in pixels.

        ImageError, stage decode, also when the process that did it died (crashed), hung (timeout) or grew too large.
        """
        width, height = canvas[:2] if canvas else size
        found, pixels = self._ask("decode", data, size[0] * size[1], width * height * 3, canvas)
        if tuple(found["size"]) != size:
            raise ImageError("decode", "corrupt", f"the header says {size}, the pixels are {found['size']}")
        return Image.frombytes("RGB", (width, height), pixels)

    def close(self) -> None:
        """Ends the processes, when nobody is in them any more."""
        for _ in range(self._processes):
            self._free.get().end()

    def _ask(
        self, stage: str, data: bytes, pixels: int, pixel_bytes: int, canvas: Canvas | None
    ) -> tuple[dict[str, Any], bytes]:
        memory = len(data) * _BYTES_PER_ENCODED + pixels * _BYTES_PER_PIXEL
        question = Question(stage == "decode", len(data), max(len(data), pixel_bytes, 1), memory, self._seconds, canvas)
        for attempt in range(1, _ATTEMPTS + 1):
            process = self._free.get()
            try:
                found, result = process.ask(question, data, pixel_bytes)
            except _Died as death:
                if death.hung or attempt == _ATTEMPTS:
                    kind = "timeout" if death.hung else "crashed"
                    raise ImageError(stage, kind, f"the decoder {death}", attempt) from None
                continue
            finally:
                self._free.put(process)
            if "error" in found:
                stage, kind, message = found["error"]
                raise ImageError(stage, kind, message, attempt)
            return found, result
        raise AssertionError("the last attempt returns or raises")


class _Died(Exception):
    """A process ended before it answered. hung: because its time was over."""

    def __init__(self, said: str, hung: bool) -> None:
        super().__init__(said)
        self.hung = hung


class _Process:
    """One decoder process, or the next one when it has ended, and the memory shared with it."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._child: subprocess.Popen[bytes] | None = None
        self._images = 0
        self._shared_fd = _shared_file()
        weakref.finalize(self, os.close, self._shared_fd)
        self._shared: mmap.mmap | None = None

    def ask(self, question: Question, data: bytes, pixel_bytes: int) -> tuple[dict[str, Any], bytes]:
        """What the process answers, and the bytes that it leaves. _Died when it doesn't; then it is gone."""
        child = self._child or self._start()
        shared = self._share(question.shared_bytes)
        shared[: len(data)] = data
        assert child.stdin is not None
        try:
            child.stdin.write(question._replace(shared_bytes=len(shared)).pack())
            child.stdin.flush()
            found = read_answer(lambda size: self._read(child, size, question.seconds + _GRACE_SECONDS))
        except (_Died, BrokenPipeError, ValueError) as error:
            raise self._obituary(child, question.seconds, error) from None
        result = shared[:pixel_bytes] if "error" not in found else b""
        self._images += 1
        if self._images >= _IMAGES_PER_PROCESS or len(shared) > _KEPT_SHARED_BYTES:
            self.end()
        return found, result

    def end(self) -> None:
        """Ends the process and gives its memory back."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
        self._child, self._images, self._shared = None, 0, None
        os.ftruncate(self._shared_fd, 0)

    def _start(self) -> subprocess.Popen[bytes]:
        """A new process. RuntimeError when it can't start at all, which is no image's fault."""
        paths = [str(Path(__file__).resolve().parents[1]), *filter(None, sys.path)]
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "OPENBLAS_NUM_THREADS": "1"}
        self._child = child = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.decoder_process", str(self._shared_fd), str(self._max_pixels)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(self._shared_fd,),
            env=environment,
        )
        try:
            self._read(child, len(READY), _START_SECONDS)
        except _Died:
            self.end()
            command = f"{sys.executable} -P -m pipeline.decoder_process 0 1"
            raise RuntimeError(f"the decoder process does not start: try `{command}` to see why") from None
        return child

    def _share(self, size: int) -> mmap.mmap:
        if self._shared is None or len(self._shared) < size:
            size = -(-size // _STEP) * _STEP
            os.ftruncate(self._shared_fd, size)
            self._shared = mmap.mmap(self._shared_fd, size)
        return self._shared

    def _read(self, child: subprocess.Popen[bytes], size: int, seconds: float) -> bytes:
        assert child.stdout is not None
        got = b""
        poll = select.poll()
        poll.register(child.stdout, select.POLLIN)
        while len(got) < size:
            if not poll.poll(seconds * 1000):
                raise _Died("did not answer", hung=True)
            part = os.read(child.stdout.fileno(), size - len(got))
            if not part:
                raise _Died("ended", hung=False)
            got += part
        return got

    def _obituary(self, child: subprocess.Popen[bytes], seconds: float, seen: Exception) -> _Died:
        if isinstance(seen, ValueError) or (isinstance(seen, _Died) and seen.hung):
            child.kill()
        try:
            status = child.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:  # it closed its end and lives on
            child.kill()
            status = child.wait()
        self.end()
        if (isinstance(seen, _Died) and seen.hung) or status == -signal.SIGALRM:
            return _Died(f"was not done after {seconds:g} s (decode_seconds) and was ended", hung=True)
        how = f"died of {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        return _Died(f"{how} on this image", hung=False)


def _shared_file() -> int:
    """A file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("decoder")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
