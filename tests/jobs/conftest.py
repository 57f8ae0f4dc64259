"""The jobs' tests share the pipeline's checkpoint."""

from tests.pipeline.conftest import tiny_checkpoint

__all__ = ["tiny_checkpoint"]
