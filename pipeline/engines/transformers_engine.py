"""The engine of any image-text model that transformers knows: whatever `AutoModelForImageTextToText` loads, in batches.

A thread of its own takes the questions that wait, oldest first, joined by later ones whose images are sent at the same
size, so that a batch holds images of one shape and pads texts alone. A batch that fails is asked again one by one, so
that only the question at fault fails. What stands for the KV budget here is `batch`.

Shapes: B questions of a batch, P tokens of the longest prompt, T tokens of the longest output, V vocabulary.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from model.pointing import Decision, decide
from model.request import Completion, EngineDead, EngineStats, Request, RequestError, Usage
from model.sampling import Sampling
from model.weights import revision

from .frames import Frame

INSTALL = 'pip install -e ".[transformers]"'

# For processors that bring no template of their own: the image, then the words.
_PLAIN_TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'image' %}IMAGE{% else %}{{ '\n' + part.text + '\n' }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


class TransformersEngine:
    """Answers with one checkpoint: a folder in the layout of transformers, weights as safetensors, no code of its own.

    ValueError when transformers is not installed or the folder holds no such model.
    """

    def __init__(
        self, checkpoint: str, frame: Frame, *, batch: int, max_pixels: int, device: str = "auto", dtype: str = "auto"
    ) -> None:
        if batch < 1:
            raise ValueError(f"a batch has at least one question, got {batch}")
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        kind = ("bfloat16" if self.device.type == "cuda" else "float32") if dtype == "auto" else dtype
        self._processor, self._model = _loaded(checkpoint, getattr(torch, kind), self.device)
        self._template = self._processor.chat_template or _PLAIN_TEMPLATE.replace("IMAGE", self._processor.image_token)
        self._ends = _end_ids(self._model, self._processor.tokenizer)
        self.name, self.revision = Path(checkpoint).name, revision(checkpoint)
        self.frame, self._batch, self._max_pixels = frame, batch, max_pixels
        self._stats = EngineStats()
        self._wake = threading.Condition()
        self._waiting: list[_Question] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def answer(self, request: Request) -> list[Completion | RequestError]:
        """For each question its completion, or why there is none. EngineDead when the engine was closed."""
        sent = self.frame.sent_size(request.image.size, self._max_pixels)
        image = await asyncio.to_thread(request.image.resize, sent, Image.Resampling.BICUBIC)
        questions = []
        for number, text in enumerate(request.questions):
            decision = decide(text, request.modes[number])
            questions.append(_Question(image, self.frame.ask(text, decision.point), decision, number, request))
        with self._wake:
            if self._closed:
                raise EngineDead("the engine is closed")
            self._waiting += questions
            self._stats.requests += 1
            self._wake.notify()
        return list(await asyncio.gather(*(asyncio.wrap_future(question.future) for question in questions)))

    def stats(self) -> EngineStats:
        """A copy of the counters; a step is one token of one batch."""
        return replace(self._stats, idle_reasons=dict(self._stats.idle_reasons))

    def close(self) -> None:
        """Stop after the current batch; what still waits fails with EngineDead."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    # ---- the engine's thread

    def _run(self) -> None:
        while True:
            began = time.perf_counter()
            with self._wake:
                self._wake.wait_for(lambda: self._closed or bool(self._waiting))
                if self._closed:
                    break
                batch = self._next_batch()
            started = time.perf_counter()
            self._stats.idle_s += started - began
            for question, outcome in zip(batch, self._outcomes(batch), strict=True):
                question.future.set_result(outcome)
            self._stats.busy_s += time.perf_counter() - started
        for question in self._waiting:
            question.future.set_exception(EngineDead("the engine is closed"))

    def _next_batch(self) -> list[_Question]:
        first = self._waiting[0]
        # What is drawn for a question must not depend on the others, so sampled ones go alone.
        room = self._batch if first.request.sampling.temperature == 0 else 1
        batch = [question for question in self._waiting if question.goes_with(first)][:room]
        taken = set(map(id, batch))
        self._waiting = [question for question in self._waiting if id(question) not in taken]
        return batch

    def _outcomes(self, batch: list[_Question]) -> list[Completion | RequestError]:
        try:
            return self._complete(batch)
        except Exception as error:  # a model's code is not ours: whatever it raises is this batch's
            if len(batch) > 1:
                return [outcome for question in batch for outcome in self._outcomes([question])]
            return [RequestError("engine_step", f"{type(error).__name__}: {error}")]

    @torch.inference_mode()
    def _complete(self, batch: list[_Question]) -> list[Completion | RequestError]:
        request, number = batch[0].request, batch[0].number
        inputs = self._inputs(batch)
        confidences = _Confidences()
        torch.manual_seed((request.sampling.seed + number) % (1 << 63))
        ids_BPT = self._model.generate(
            **inputs,
            max_new_tokens=request.max_output_tokens,
            logits_processor=[confidences],
            **_choosing(request.sampling),
        )
        output_BT = ids_BPT[:, inputs["input_ids"].shape[1] :]
        confidences.end(output_BT)
        self._stats.steps += output_BT.shape[1]
        self._stats.sequence_steps += output_BT.shape[1] * len(batch)
        prompt_tokens_B = inputs["attention_mask"].sum(1).tolist()
        return [
            self._completion(question, output, prompt_tokens, confidences.of(row))
            for row, (question, output, prompt_tokens) in enumerate(
                zip(batch, output_BT.tolist(), prompt_tokens_B, strict=True)
            )
        ]

    def _inputs(self, batch: list[_Question]) -> Any:
        """The prompts of a batch, padded on the left; control tokens in a question are plain text."""
        content = [
            [{"type": "image", "image": question.image}, {"type": "text", "text": question.text}] for question in batch
        ]
        inputs = self._processor.apply_chat_template(
            [[{"role": "user", "content": parts}] for parts in content],
            chat_template=self._template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            sanitize_control_tokens=True,
            processor_kwargs={"padding": True, "padding_side": "left"},
        )
        return inputs.to(self.device, dtype=self._model.dtype)

    def _completion(
        self, question: _Question, output: list[int], prompt_tokens: int, log_probabilities: list[float] | None
    ) -> Completion:
        length = next((at for at, token in enumerate(output) if token in self._ends), len(output))
        stopped = length < len(output)
        # Tags of primitives are special tokens in some vocabularies: skipping those would lose them.
        text = self._processor.tokenizer.decode(output[:length], skip_special_tokens=False)
        self._stats.answers += 1
        self._stats.prompt_tokens += prompt_tokens
        self._stats.output_tokens += length
        usage = Usage(None, prompt_tokens, length, None, None, False, *question.decision)
        chosen = log_probabilities and log_probabilities[: length + stopped]  # the end was chosen too
        confidence = math.exp(sum(chosen) / len(chosen)) if chosen else None
        return Completion(text, tuple(output[:length]), "stop" if stopped else "length", confidence, usage)


@dataclass(frozen=True, eq=False)
class _Question:
    image: Image.Image
    text: str
    decision: Decision
    number: int
    request: Request
    future: Future[Completion | RequestError] = field(default_factory=Future)

    def goes_with(self, other: _Question) -> bool:
        """Whether both may be in one batch."""
        ours, theirs = self.request, other.request
        same_kind = ours.max_output_tokens == theirs.max_output_tokens and ours.sampling == theirs.sampling
        return self is other or (self.image.size == other.image.size and same_kind)


class _Confidences:
    """A logits processor that changes nothing and keeps the log-probability of each token that was chosen.

    A model whose own `generate` drops such processors (Janus) has none to tell.
    """

    def __init__(self) -> None:
        self._last_BV: Tensor | None = None
        self._chosen_TB: list[Tensor] = []
        self._log_probabilities_BT: list[list[float]] = []

    def __call__(self, ids_BT: Tensor, logits_BV: Tensor) -> Tensor:
        self._take(ids_BT)
        self._last_BV = logits_BV.float().log_softmax(-1)
        return logits_BV

    def end(self, output_BT: Tensor) -> None:
        """After the last token, which no further call shows."""
        self._take(output_BT)
        if self._chosen_TB:
            self._log_probabilities_BT = torch.stack(self._chosen_TB, dim=1).tolist()

    def of(self, row: int) -> list[float] | None:
        return self._log_probabilities_BT[row] if self._log_probabilities_BT else None

    def _take(self, ids_BT: Tensor) -> None:
        if self._last_BV is not None:
            self._chosen_TB.append(self._last_BV.gather(1, ids_BT[:, -1:]).squeeze(1))


def _choosing(sampling: Sampling) -> dict[str, Any]:
    if sampling.temperature == 0:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}


def _loaded(checkpoint: str, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """The processor and the model in a folder."""
    try:
        from transformers import AutoModelForImageTextToText, AutoProcessor
    except ImportError as error:
        raise ValueError(f"--engine transformers needs its libraries: {INSTALL} ({error})") from None
    if not (Path(checkpoint) / "config.json").is_file():
        raise ValueError(f"{checkpoint} holds no config.json: give the folder of a transformers checkpoint")
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoProcessor.from_pretrained(checkpoint, **safe)
        model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=dtype, use_safetensors=True, **safe)
    except ImportError as error:  # some processors are made of torchvision
        raise ValueError(f"{checkpoint} needs libraries beside transformers: {INSTALL} ({error})") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"transformers can't load {checkpoint} as an image-text model: {error}") from None
    return processor, model.eval().to(device)


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a response, padding after it among them."""
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return frozenset(token for token in (*ends, tokenizer.eos_token_id, tokenizer.pad_token_id) if token is not None)
