"""An OpenAI-compatible endpoint: where it is, what of it is asked, and how patiently."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from ..settings import EngineSettings


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask. `url` ends before `/chat/completions`; the key is read from the environment variable
    `key_variable`, none is sent when that is not set. `timeout_s` is of one request, `patience_s` of all tries that the
    server refused or did not hear: a wait it states that would last longer is an error at once."""

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    max_pixels: int = 1_000_000
    in_flight: int = 64
    timeout_s: float = 120.0
    attempts: int = 5
    patience_s: float = 300.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError(
                f"an endpoint is http(s)://HOST[:PORT]/v1, got {self.url!r}; the key goes into ${self.key_variable}"
            )
        if not self.model:
            raise ValueError("which model of the endpoint? give its name")

    @staticmethod
    def of(settings: EngineSettings) -> Endpoint:
        return Endpoint(
            url=settings.endpoint or "",
            model=settings.model if "model" in settings.model_fields_set else "",
            key_variable=settings.key_variable,
            max_pixels=settings.send_pixels,
            in_flight=settings.requests_in_flight or Endpoint.in_flight,
            timeout_s=settings.request_seconds,
            attempts=settings.request_attempts,
            patience_s=settings.patience_seconds,
        )

    @property
    def revision(self) -> str:
        """What is known of the weights behind it: a name, and where it means something."""
        return f"{self.model} at {self.url}"
