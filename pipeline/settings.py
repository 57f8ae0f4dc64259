"""The settings of a run, in the parts that other commands share: which catalog is asked, and what answers."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from model.pointing import PrimitivesMode

from .sources import PROJECT, Sources

BUNDLED_CATALOG = PROJECT / "catalogs" / "demo.parquet"
BUNDLED_MODEL = PROJECT / "model" / "checkpoints" / "default"


class ImageSettings(Sources):
    """What is asked of which images, and what an image may be."""

    catalog: str = Field(
        default=str(BUNDLED_CATALOG),
        description="the images: a Parquet file, a folder of Parquet files or of images, or an s3:// prefix of either",
    )
    question: Annotated[list[str], NoDecode] = Field(
        default=[], description="ask this of every image, instead of the catalog's own questions; may be repeated"
    )
    limit: int | None = Field(default=None, ge=1, description="stop after the first N images [all]")
    image_seconds: float = Field(
        default=900.0,
        gt=0,
        description="an engine that has not answered an image after this long hangs, and is ended; its images move on",
    )

    id_column: str | None = Field(
        default=None,
        description="Parquet column with the unique id of each image [image_id, else a hash of image and questions]",
    )
    image_column: str | None = Field(
        default=None,
        description="Parquet column with image bytes, {bytes, path} or URIs [image, image_uri, uri, url or path]",
    )
    image_root: str | None = Field(
        default=None, description="folder that local image paths start from and must stay inside [the catalog's folder]"
    )
    max_image_bytes: int = Field(
        default=50_000_000, ge=1, description="an encoded image larger than this is an error row"
    )
    max_image_pixels: int = Field(
        default=100_000_000, ge=1, description="an image of more pixels than this is an error row"
    )

    allow_scheme: Annotated[list[Literal["https", "http"]], NoDecode] = Field(
        default=["https"], description="web addresses of this scheme may be images; may be repeated [https]"
    )
    allow_host: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="only this web host, or with a leading dot all of a domain; may be repeated [any public]",
    )
    allow_bucket: Annotated[list[str], NoDecode] = Field(
        default=[], description="S3 bucket that images may lie in beside the catalog's own; may be repeated"
    )
    allow_root: Annotated[list[str], NoDecode] = Field(
        default=[], description="folder that local images may lie in beside image-root; may be repeated"
    )
    allow_address: Annotated[list[str], NoDecode] = Field(
        default=[], description="network of your own that images may come from, as 10.1.0.0/16; may be repeated [none]"
    )
    fetch_attempts: int = Field(default=5, ge=1, description="an image is asked for so often before it is an error row")
    fetch_seconds: float = Field(
        default=120.0, gt=0, description="an image that has not come after this time, retries included, is an error row"
    )
    decode_seconds: float = Field(
        default=60.0, gt=0, description="an image that is not decoded after this time is an error row"
    )
    requests_per_host: int = Field(default=32, ge=1, description="requests to one web host at a time, of the whole run")

    @field_validator(
        "question", "allow_scheme", "allow_host", "allow_bucket", "allow_root", "allow_address", mode="before"
    )
    @classmethod
    def _lists_from_text(cls, value: Any) -> Any:
        """One item per line, or a JSON list: how the environment writes a list."""
        if not isinstance(value, str):
            return value
        return json.loads(value) if value.lstrip().startswith("[") else value.splitlines()

    @field_validator("allow_address")
    @classmethod
    def _addresses_are_networks(cls, value: list[str]) -> list[str]:
        for text in value:
            ipaddress.ip_network(text)  # says what is wrong with it
        return value

    @field_validator("question")
    @classmethod
    def _questions_have_words(cls, value: list[str]) -> list[str]:
        if any(not question.strip() for question in value):
            raise ValueError("a question is blank: leave it out, or write it")
        return value


class CatalogSettings(ImageSettings):
    """The same, and where the answers go."""

    output: str | None = Field(
        default=None,
        description="folder or s3:// prefix for the answers and run.json [results/RUN_ID under this folder]",
    )
    overwrite: bool = Field(default=False, description="replace the answers that OUTPUT holds instead of going on")
    format: Literal["parquet", "arrow"] = Field(default="parquet", description="file format of the answers table")
    rows_per_file: int = Field(default=1024, ge=1, description="answer rows in one output file, about")

    # Exactly once: what an output that holds answers means for this run, and what a crash may cost.
    on_change: Literal["refuse", "renew"] = Field(
        default="refuse",
        description="when OUTPUT answers other questions, or by another model: stop, or answer anew what changed"
        " and drop what is not asked any more",
    )
    retry_errors: bool = Field(default=False, description="ask again what ended as an error in OUTPUT")
    commit_seconds: float = Field(
        default=30.0, gt=0, description="longest time that finished answers wait for their file"
    )
    max_error_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="stop when more than this share of the answers, of 100 at least, are errors (1: never)",
    )
    write_seconds: float = Field(
        default=300.0, ge=0, description="how long a file that can't be written is tried again before the run stops"
    )


class EngineSettings(Sources):
    """The model, how it answers, and how many of it run where."""

    engine: Literal["native", "openai", "transformers", "vllm"] = Field(default="native", description="what answers")
    model: str = Field(
        default=str(BUNDLED_MODEL), description="checkpoint folder; for the engine openai the model's name there"
    )
    frame: Literal["deepseek", "qwen2.5-vl", "qwen3-vl", "gemini", "unit", "json"] | None = Field(
        default=None, description="how the model points, for engines other than native [by its family, else json]"
    )
    send_pixels: int = Field(
        default=1_000_000, ge=1024, description="engines other than native see an image with at most so many pixels"
    )
    batch: int = Field(default=8, ge=1, description="questions that the engine transformers asks at a time")
    endpoint: str | None = Field(default=None, description="address of the engine openai, up to /v1")
    key_variable: str = Field(
        default="OPENAI_API_KEY", description="environment variable, on the workers, that holds the endpoint's key"
    )
    requests_in_flight: int | None = Field(
        default=None,
        ge=1,
        description="requests to the endpoint, or questions in vllm, at a time, of one actor [64; vllm's own choice]",
    )
    request_seconds: float = Field(
        default=120.0, gt=0, description="a request to the endpoint, or a question in vllm, is cut off after this"
    )
    request_attempts: int = Field(default=5, ge=1, description="a request that fails is sent so often")
    patience_seconds: float = Field(
        default=300.0, gt=0, description="an endpoint that refuses or is not there is waited for so long"
    )
    price_prompt: float = Field(default=0.0, ge=0, description="money for a million prompt tokens, for run.json's cost")
    price_output: float = Field(default=0.0, ge=0, description="money for a million output tokens")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="what the model runs on; auto: a GPU if any"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(default="auto", description="number format of the weights")
    kv_dtype: Literal["auto", "fp8"] = Field(
        default="auto",
        description="number format of the engine native's KV cache: the weights'; fp8: as the released model keeps it",
    )
    primitives: PrimitivesMode = Field(
        default="auto", description="whether answers point; auto: chosen from each question's words"
    )
    temperature: float = Field(default=0.0, ge=0, description="of sampling; 0: always the likeliest token")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="sample from the likeliest tokens that have this share of the probability"
    )
    seed: int = Field(default=0, description="of sampling: what is drawn for an image's questions repeats with it")
    max_output_tokens: int = Field(default=256, ge=1, description="longest response to one question, in tokens")
    kv_budget_mb: int | None = Field(
        default=None,
        ge=1,
        description="KV cache of one engine in MB (10^6 bytes), for vllm of each of its GPUs"
        " [64 on a CPU, kv-share on a GPU; vllm: 1000 on a CPU, its own choice on a GPU]",
    )
    kv_share: float = Field(
        default=0.6, gt=0, lt=1, description="share of a GPU's free memory that is the KV cache of the engine native"
    )

    actors: int = Field(default=1, ge=1, description="engines that run side by side, one Ray actor each")
    cpus_per_actor: float = Field(default=1.0, gt=0, description="CPUs that one actor reserves and its model uses")
    gpus_per_actor: float = Field(
        default=0.0, ge=0, description="GPUs that one actor reserves; vllm shares a model among several"
    )
    images_in_flight: int = Field(default=256, ge=1, description="images that one actor holds at a time at most")
    address: str | None = Field(
        default=None,
        description="Ray cluster to join, as in ray.init [RAY_ADDRESS, else a private one on this machine]",
    )


class Settings(EngineSettings, CatalogSettings):
    """Everything a run can be told."""

    about = "Ask questions of every image in a catalog; write answers that point."
    prog = "catalog_qa.py"


def require_checkpoint(folder: str) -> None:
    """ValueError when the folder lacks a part of a checkpoint."""
    path = Path(folder).expanduser()
    lacking = [name for name in ("config.json", "tokenizer.json") if not (path / name).is_file()]
    if not any(path.glob("*.safetensors")):
        lacking.append("*.safetensors")
    if lacking:
        raise ValueError(f"{folder} is not a checkpoint: it lacks {', '.join(lacking)} (--model names another folder)")
