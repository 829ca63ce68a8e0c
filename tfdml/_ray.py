"""Ray, on this machine or on a cluster. It is loaded only when it is used."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

_OBJECT_STORE = 256 << 20  # what travels is small: numbers of parts, names of files, receipts


def has_ray() -> bool:
    return importlib.util.find_spec("ray") is not None


def import_ray(data: bool = False) -> Any:
    """Ray, and Ray Data if asked for, without its statistics of usage, which would be sent to its makers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray

        if data:
            import ray.data
    except ImportError as error:
        raise ImportError(
            "Ray is not installed. Run: pip install 'tfdml[ray]', or leave out address, workers and gpus."
        ) from error
    return ray


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster, or started on this machine's cores and stopped afterwards.

    A session that the caller has begun is used as it is, unless an address is given.
    """
    ray = import_ray()
    if ray.is_initialized():
        if address is not None:
            raise ValueError(f"address={address!r}: this process is connected to Ray already. Leave it out, or ray.shutdown().")
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if address in (None, "local"):
        # Said, not left out, because RAY_ADDRESS would otherwise choose a cluster behind the caller's back.
        options |= {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    else:
        options["address"] = address
    try:
        ray.init(**options)
    except ConnectionError as error:
        raise ConnectionError(f"address={address!r}: no Ray cluster answers there: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
