"""vLLM's asynchronous engine inside the actor: any image-text model that vLLM can run, from a folder.

Each question is a request of its own; those of one image go in together, the image first in each prompt and under one
id, so that vLLM prepares it once, runs its tower once and keeps what the questions share in its prefix cache. vLLM
computes in processes of its own and says no footprint beforehand: what bounds the work here is the number of questions
in flight. It knows nothing of a hurry either: a question that takes too long is taken back, and if nothing at all has
come meanwhile, the engine counts as dead.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import multiprocessing
import os
import subprocess
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from PIL import Image
from ray.util.placement_group import get_current_placement_group

from model.pointing import Decision, decide
from model.request import Completion, EngineDead, EngineStats, Request, RequestError, Usage
from model.sampling import Sampling
from model.weights import revision

from .frames import Frame
from .makers import VLLM_INSTALL

_CPU_KV_BYTES = 1_000_000_000  # vLLM's own choice would be nearly all of a machine's memory
_PREPARED_GB = 1  # of images that vLLM keeps prepared: an image's questions come right after one another
_WAITING_SHARE = 0.1  # of the questions that vLLM runs at a time: so many more wait in it, to follow at once
# Its two halves may differ on which images are prepared, if questions overtake each other; the second try sends all.
_TRIES = 2
_MARK = "WhatIsAsked"
# Ends what is named when the process at the other end of its input is gone, however that happened.
_LEASH = 'read _; kill -9 "$@" 2>/dev/null'


@dataclass(frozen=True)
class Shape:
    """What one engine may take. `in_flight`: questions that run at a time, None: as vLLM sees fit; `kv_bytes`: of each
    GPU or of the CPU; `gpus`: the model is split among so many; `threads`: of a CPU; `seconds`: for one question;
    `draws`: tokens are drawn by seeds."""

    max_pixels: int
    seconds: float
    in_flight: int | None = None
    kv_bytes: int | None = None
    gpus: int = 0
    threads: int = 1
    device: str = "auto"
    dtype: str = "auto"
    draws: bool = False


class VllmEngine:
    """Answers with one checkpoint: a folder in the layout of transformers. All calls must come from one event loop.

    ValueError when vLLM is not installed, or can't run what is in the folder on this device.
    """

    def __init__(self, checkpoint: str, frame: Frame, shape: Shape) -> None:
        self.name, self.revision = Path(checkpoint).name, revision(checkpoint)
        self.frame, self._shape = frame, shape
        self._stats, self._meter = EngineStats(), _Meter()
        self._vllm = _Vllm(checkpoint, shape, self._meter)
        running = self._vllm.most_running
        self._places = asyncio.Semaphore(running + math.ceil(running * _WAITING_SHARE))
        self._ids = itertools.count()
        self._images, self._mark = 0, time.perf_counter()
        self._closed = False

    async def answer(self, request: Request) -> list[Completion | RequestError]:
        """For each question its completion, or why there is none. EngineDead when there will be no more."""
        if self._closed:
            raise EngineDead("the engine is closed")
        sent = self.frame.sent_size(request.image.size, self._shape.max_pixels)
        image, name = await asyncio.to_thread(prepared, request.image, sent)
        self._count(+1)
        try:
            # Places are given in the order in which they are asked for, so siblings stay together.
            asked = (self._ask(request, number, image, name) for number in range(len(request.questions)))
            return list(await asyncio.gather(*asked))
        finally:
            self._count(-1)

    def stats(self) -> EngineStats:
        """A copy of the counters; a step is one of vLLM's, busy is the time with an image in it."""
        self._count(0)
        meter, kv_bytes = self._meter, self._vllm.kv_bytes
        told = replace(self._stats, steps=meter.steps, sequence_steps=meter.sequence_steps)
        return replace(told, kv_budget_bytes=kv_bytes, kv_peak_bytes=round(kv_bytes * meter.kv_share))

    def close(self) -> None:
        """Ends vLLM's processes; what is under way fails with EngineDead."""
        self._closed = True
        self._vllm.close()

    async def _ask(self, request: Request, number: int, image: Image.Image, name: str) -> Completion | RequestError:
        decision = decide(request.questions[number], request.modes[number])
        text, schema = self.frame.ask(request.questions[number], decision.point), self.frame.schema(decision.point)
        choosing = sampling_of(request.sampling, number, request.max_output_tokens)
        try:
            async with self._places:
                for _ in range(_TRIES):
                    prompt, image_tokens = await self._vllm.prompt(text, image, name)
                    output = await self._in_time(self._vllm.generate(prompt, choosing, schema, f"q{next(self._ids)}"))
                    if output.outputs[0].finish_reason != "error":
                        break
        except EngineDead:
            raise
        except RequestError as late:
            return late
        except Exception as error:  # vLLM's code is not ours: whatever it raises is this question's
            return self._failed(error)
        return self._completion(output, image_tokens, decision)

    async def _in_time(self, generating: Awaitable[Any]) -> Any:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._shape.seconds):
                return await generating
        except TimeoutError:
            limit = f"{self._shape.seconds:g} s (--request-seconds)"
            if self._meter.heard < began:
                raise EngineDead(f"vLLM has made no step within {limit}") from None
            raise RequestError("timeout", f"no answer within {limit}") from None

    def _failed(self, error: Exception) -> RequestError:
        if self._closed or self._vllm.dead:
            raise EngineDead(f"vLLM's engine is gone: {error}") from None
        cause = error.__cause__ or error  # vLLM says that generation failed, and why behind it
        kind = "engine_refused" if isinstance(error, self._vllm.refusals) else "engine_step"
        return RequestError(kind, f"{type(cause).__name__}: {cause}")

    def _completion(self, output: Any, image_tokens: int, decision: Decision) -> Completion | RequestError:
        made, cached = output.outputs[0], output.num_cached_tokens or 0
        if made.finish_reason not in ("stop", "length"):
            return RequestError(f"engine_{made.finish_reason}", f"vLLM ended this question: {made.finish_reason}")
        tokens = tuple(made.token_ids)
        self._stats.answers += 1
        self._stats.prompt_tokens += len(output.prompt_token_ids)
        self._stats.output_tokens += len(tokens)
        shared = cached > image_tokens / 2  # it counts in whole blocks
        usage = Usage(image_tokens, len(output.prompt_token_ids), len(tokens), None, None, shared, *decision)
        confidence = math.exp(made.cumulative_logprob / len(tokens)) if tokens else None
        return Completion(made.text, tokens, made.finish_reason, confidence, usage)

    def _count(self, images: int) -> None:
        """Images that come and go, and the time since the last of them: busy with some, or idle."""
        now = time.perf_counter()
        if self._images:
            self._stats.busy_s += now - self._mark
        else:
            self._stats.idle_s += now - self._mark
        self._mark = now
        self._images += images
        self._stats.requests += max(images, 0)
        self._stats.images_in_flight_peak = max(self._stats.images_in_flight_peak, self._images)


def prepared(image: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, str]:
    """An RGB image at the size (width, height) that is sent, and a name that only the same pixels have."""
    seen = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
    return seen, hashlib.sha256(repr(seen.size).encode() + seen.tobytes()).hexdigest()


def sampling_of(sampling: Sampling, number: int, max_output_tokens: int) -> dict[str, Any]:
    """vLLM's sampling parameters of the question at place `number`, but for those that its own classes make."""
    # Tags of primitives are special tokens in some vocabularies: skipping those would lose them.
    chosen: dict[str, Any] = {"max_tokens": max_output_tokens, "skip_special_tokens": False, "logprobs": 0}
    if sampling.temperature == 0:
        return chosen | {"temperature": 0.0}
    seed = (sampling.seed + number) % (1 << 63)
    return chosen | {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed}


def arguments_of(checkpoint: str, shape: Shape, on_cpu: bool, in_group: bool) -> dict[str, Any]:
    """vLLM's engine arguments; `in_group`: the actor sits in a placement group.

    ValueError when vLLM was built for another device than was asked for, or for one where it can't do that.
    """
    if shape.device == ("cuda" if on_cpu else "cpu"):
        built = "CPUs" if on_cpu else "GPUs"
        raise ValueError(f"--device {shape.device}, but this vLLM was built for {built}: install the other, or drop it")
    if on_cpu and shape.draws:  # its engine dies when a prompt with a seed is taken in parts (0.32)
        raise ValueError("vLLM can't draw by seeds on a CPU: --temperature 0, or another engine")
    arguments: dict[str, Any] = {
        "model": checkpoint,
        "dtype": shape.dtype,
        "max_num_seqs": shape.in_flight,
        "max_model_len": -1,  # the model's, or as much as the KV cache holds
        "kv_cache_memory_bytes": shape.kv_bytes or (_CPU_KV_BYTES if on_cpu else None),
        "enable_prefix_caching": True,
        "mm_processor_cache_gb": _PREPARED_GB,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "enforce_eager": on_cpu,  # compiling takes a CPU longer than most runs would gain
        "disable_log_stats": True,
    }
    if shape.gpus > 1:  # by workers that take the group's GPUs, or that share the actor's
        arguments |= {"tensor_parallel_size": shape.gpus, "distributed_executor_backend": "ray" if in_group else "mp"}
    return arguments


class _Meter:
    """What vLLM tells after each step, in the shape of its loggers."""

    def __init__(self) -> None:
        self.steps = self.sequence_steps = 0
        self.kv_share = 0.0  # the largest seen
        self.heard = -math.inf  # time.monotonic() of the last step

    def record(self, scheduler_stats: Any = None, *_: Any, **__: Any) -> None:
        self.heard = time.monotonic()
        if scheduler_stats is not None:
            self.steps += 1
            self.sequence_steps += scheduler_stats.num_running_reqs
            self.kv_share = max(self.kv_share, scheduler_stats.kv_cache_usage)

    def log_engine_initialized(self) -> None: ...
    def log(self) -> None: ...
    def record_sleep_state(self, *_: Any) -> None: ...


class _Vllm:
    """All that touches vLLM's own classes: imported here, for it is not needed to run anything else."""

    def __init__(self, checkpoint: str, shape: Shape, meter: _Meter) -> None:
        # Read when vLLM is imported: no reports home, no core but those that the actor reserved.
        os.environ |= {"VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": str(shape.threads)}
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        try:
            import vllm
            from vllm.exceptions import VLLMClientError
            from vllm.platforms import current_platform
            from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
        except ImportError as error:
            raise ValueError(f"--engine vllm needs its libraries: {VLLM_INSTALL} ({error})") from None
        self._module, self._structured, self._final = vllm, StructuredOutputsParams, RequestOutputKind.FINAL_ONLY
        self.refusals = (VLLMClientError, ValueError)
        in_group = ray.is_initialized() and get_current_placement_group() is not None
        arguments = vllm.AsyncEngineArgs(**arguments_of(checkpoint, shape, current_platform.is_cpu(), in_group))
        self._llm = vllm.AsyncLLMEngine.from_engine_args(arguments, stat_loggers=[lambda *_: meter])
        names = [str(child.pid) for child in multiprocessing.active_children()]
        self._leash = subprocess.Popen(["sh", "-c", _LEASH, "leash", *names], stdin=subprocess.PIPE)
        config = self._llm.vllm_config
        self.most_running = int(config.scheduler_config.max_num_seqs)
        self.kv_bytes = config.cache_config.kv_cache_memory_bytes or 0
        self._tokenizer = self._llm.renderer.get_tokenizer()
        self._before, self._after = self._around(checkpoint)

    @property
    def dead(self) -> bool:
        return bool(self._llm.errored)

    async def prompt(self, text: str, image: Image.Image, name: str) -> tuple[Any, int]:
        """What vLLM runs for a text about an image, which it prepares on a thread of its own; the image's tokens."""
        # Split as text, whatever it looks like: nobody forges a turn or an image.
        asked = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        raw = {
            "prompt_token_ids": [*self._before, *asked, *self._after],
            "multi_modal_data": {"image": image},
            "multi_modal_uuids": {"image": name},
        }
        (rendered,) = await self._llm.renderer.render_cmpl_async([raw])
        return rendered, sum(place.length for place in rendered["mm_placeholders"]["image"])

    async def generate(self, prompt: Any, choosing: dict[str, Any], schema: dict[str, Any] | None, name: str) -> Any:
        """vLLM's last word on a prompt; what is cancelled is taken back from it."""
        shaped = self._structured(json=schema) if schema else None
        sampling = self._module.SamplingParams(**choosing, structured_outputs=shaped, output_kind=self._final)
        async for output in self._llm.generate(prompt, sampling, name):
            last = output
        return last

    def close(self) -> None:
        self._llm.shutdown()
        self._leash.communicate()

    def _around(self, checkpoint: str) -> tuple[list[int], list[int]]:
        """The tokens before and after a question, image in front, in the words of the model's own template."""
        from vllm.renderers.params import ChatParams

        parts = [{"type": "image_pil", "image_pil": Image.new("RGB", (64, 64))}, {"type": "text", "text": _MARK}]
        as_text = ChatParams(chat_template_kwargs={"tokenize": False, "add_generation_prompt": True})
        _, rendered = self._llm.renderer.render_messages([{"role": "user", "content": parts}], as_text)
        before, mark, after = rendered["prompt"].partition(_MARK)
        if not mark:
            raise ValueError(f"the chat template of {checkpoint} loses what is asked: {rendered['prompt']!r}")
        sides = (self._tokenizer(side, add_special_tokens=False).input_ids for side in (before, after))
        return tuple(map(list, sides))  # type: ignore[return-value]
