"""The retrieval service: a bundle, answering over HTTP. It imports no TensorFlow, except to embed in its own process."""

from __future__ import annotations

from tfdml_serving.settings import Settings

__all__ = ["Settings"]
