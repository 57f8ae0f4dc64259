"""Decoding in processes that die: who killed one is named, the others go on, and nothing is left behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline import decoder_pool
from pipeline.decoder_pool import DecoderPool
from pipeline.decoder_process import Canvas
from pipeline.decoding import ImageError, check, decode
from tests.pipeline.killers import killer, plant
from tests.pipeline.pictures import broken_pictures, encoded, picture, turned

GOOD = encoded(picture(), "JPEG")


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DecoderPool]:
    monkeypatch.syspath_prepend(str(plant(tmp_path)))
    made = DecoderPool(2, 1_000_000, 1_000_000, seconds=20)
    yield made
    made.close()


def error_of(pool: DecoderPool, data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        pool.decode(data, (60, 40))
    return caught.value


def children() -> set[int]:
    tasks = Path("/proc/self/task")
    return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}


def test_a_picture_comes_back_as_it_would_from_here(pool: DecoderPool) -> None:
    for data in (GOOD, encoded(picture(61, 41)), turned(picture(), 6, "JPEG"), encoded(picture().convert("LA"))):
        header = check(data, 10**6, 10**6)
        assert pool.check(data) == header
        assert pool.decode(data, (header.width, header.height)).tobytes() == decode(data).tobytes()


def test_a_picture_may_come_back_on_its_canvas(pool: DecoderPool) -> None:
    squeezed = pool.decode(GOOD, (60, 40), Canvas(28, 14, padded=False))
    padded = pool.decode(GOOD, (60, 40), Canvas(28, 28, padded=True))
    assert squeezed.size == (28, 14) and padded.size == (28, 28)
    assert padded.getpixel((0, 0)) == (127, 127, 127) != squeezed.getpixel((0, 0))


def test_errors_are_those_of_decoding_here(pool: DecoderPool) -> None:
    for name, (data, stage, kind) in broken_pictures().items():
        if stage == "fetch":
            continue
        with pytest.raises(ImageError) as caught:
            pool.check(data)
            pool.decode(data, (64, 64))
        assert (caught.value.stage, caught.value.kind) == (stage, kind), name
    assert error_of(pool, encoded(picture(50, 40))).kind == "corrupt"  # not the size that was said
    with pytest.raises(ImageError, match=r"1,000,001 bytes; max_image_bytes allows 1,000,000"):
        pool.check(bytes(1_000_001))


@pytest.mark.parametrize(
    ("order", "said"), [("segfault", "died of SIGSEGV"), ("exit", "exited with status 3"), ("babble", "on this image")]
)
def test_an_image_that_kills_its_process_is_named_after_two_deaths(pool: DecoderPool, order: str, said: str) -> None:
    error = error_of(pool, killer(order))
    assert (error.stage, error.kind, error.attempts) == ("decode", "crashed", 2) and said in error.message
    assert pool.decode(GOOD, (60, 40)).size == (60, 40)


def test_an_image_whose_process_died_for_another_reason_is_decoded_by_the_next(
    pool: DecoderPool, tmp_path: Path
) -> None:
    once = killer(f"once:{tmp_path / 'dead'}")
    assert pool.decode(once, (60, 40)).size == (60, 40) and (tmp_path / "dead").exists()


def test_an_image_that_eats_memory_meets_its_limit(pool: DecoderPool) -> None:
    error = error_of(pool, killer("eat"))
    assert (error.kind, error.attempts) == ("out_of_memory", 1)
    assert pool.decode(GOOD, (60, 40)).size == (60, 40)


def test_an_image_that_hangs_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(plant(tmp_path)))
    pool = DecoderPool(1, 10**6, 10**6, seconds=0.3)
    error = error_of(pool, killer("hang"))
    assert (error.kind, error.attempts) == ("timeout", 1) and "0.3 s (decode_seconds)" in error.message
    pool.close()


def test_a_process_that_does_not_end_itself_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = plant(tmp_path) / "sitecustomize.py"
    planted.write_text(planted.read_text().replace("    import ctypes", "    import signal, ctypes"))
    planted.write_text(
        planted.read_text().replace(
            "while True:\n                pass", "signal.setitimer(0, 0)\n            while True:\n                pass"
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(decoder_pool, "_GRACE_SECONDS", 0.3)
    pool = DecoderPool(1, 10**6, 10**6, seconds=0.2)
    assert error_of(pool, killer("hang")).kind == "timeout"
    pool.close()


def test_neighbours_of_killers_are_decoded(pool: DecoderPool) -> None:
    images = [killer("segfault") if n % 10 == 3 else GOOD for n in range(20)]

    def outcome(data: bytes) -> str:
        try:
            return str(pool.decode(data, (60, 40)).size)
        except ImageError as error:
            return error.kind

    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(outcome, images))
    assert outcomes == ["crashed" if n % 10 == 3 else "(60, 40)" for n in range(20)]


def test_processes_start_when_needed_are_renewed_and_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "_IMAGES_PER_PROCESS", 3)
    gc.collect()
    before, files = children(), len(os.listdir("/proc/self/fd"))
    pool = DecoderPool(1, 10**8, 10**8, 20)
    assert children() == before
    seen = set()
    for _ in range(7):
        pool.check(GOOD)
        seen |= children() - before
    assert len(seen) == 3
    pool.close()
    del pool
    assert children() == before and len(os.listdir("/proc/self/fd")) == files


def test_a_process_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    code = (
        "import os\nfrom pipeline.decoder_pool import DecoderPool\n"
        f"pool = DecoderPool(1, 10**6, 10**6, 20)\npool.check({GOOD!r})\n"
        "print(open(f'/proc/{os.getpid()}/task/{os.getpid()}/children').read(), flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    (pid,) = done.stdout.split()
    until = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_process_has_no_secrets_and_may_write_no_file(
    pool: DecoderPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    before = children()
    pool.check(GOOD)
    (pid,) = children() - before
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"planted-secret" not in environment and b"PYTHONPATH" in environment
    limits = Path(f"/proc/{pid}/limits").read_text()
    for name in ("Max file size", "Max core file size"):
        (line,) = [line for line in limits.splitlines() if line.startswith(name)]
        assert line.removeprefix(name).split()[:2] == ["0", "0"]


def test_a_process_that_can_not_start_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    pool = DecoderPool(1, 10**6, 10**6, 20)
    with pytest.raises(RuntimeError, match="does not start"):
        pool.check(GOOD)
