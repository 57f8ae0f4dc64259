"""What holds for every test: no network behind a library's back, no usage reports."""

from __future__ import annotations

import os

# Read when the libraries are imported, so set before any test module is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import tests.site.sitecustomize

# No test depends on how fast the machine is.
settings.register_profile("deixis", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("deixis")

# For every other process that a test starts; this one has imported it.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(tests.site.sitecustomize.__file__).parent), os.environ.get("PYTHONPATH")])
)

DEFAULT_CHECKPOINT = Path(__file__).parent.parent / "model" / "checkpoints" / "default"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with random weights and every mechanism, small enough to answer in milliseconds."""
    from model.weights import save
    from tests.tiny import TINY, tiny_model

    folder = tmp_path_factory.mktemp("tiny")
    save(tiny_model(TINY), folder)
    shutil.copy(DEFAULT_CHECKPOINT / "tokenizer.json", folder)
    return folder
