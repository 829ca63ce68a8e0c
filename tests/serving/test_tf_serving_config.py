"""The configuration files in `serving/tf_serving/` are such as TF-Serving reads, and say what the service counts on."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tf_serving_protos import BatchingParameters, ModelServerConfig, MonitoringConfig

FOLDER = Path(__file__).resolve().parents[2] / "serving" / "tf_serving"


def read(name: str, message):
    return text_format.Parse((FOLDER / name).read_text(), message())


def test_every_file_there_is_checked_here():
    assert {path.name for path in FOLDER.iterdir()} == {"models.config", "batching.config", "monitoring.config"}


def test_models():
    (model,) = read("models.config", ModelServerConfig).model_config_list.config
    assert model.name == Path(model.base_path).name
    assert Path(model.base_path).is_absolute()  # TF-Serving resolves no relative path in a configuration file
    assert model.model_platform == "tensorflow"
    # The service asks for the version whose index it holds while it moves to the next one, so both must be there.
    assert model.model_version_policy.latest.num_versions >= 2
    # A label for a version that is not loaded yet keeps the whole server from starting.
    assert not model.version_labels


def test_batching():
    batching = read("batching.config", BatchingParameters)
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == batching.max_batch_size.value
    assert batching.num_batch_threads.value >= 1
    assert batching.max_enqueued_batches.value >= 1
    assert 0 <= batching.batch_timeout_micros.value <= 10_000


def test_monitoring():
    prometheus = read("monitoring.config", MonitoringConfig).prometheus_config
    assert prometheus.enable
    assert prometheus.path.startswith("/")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (BatchingParameters, "max_batch_size: 32"),  # a wrapper message: { value: 32 }
        (BatchingParameters, "max_batch { value: 32 }"),
        (ModelServerConfig, 'model_config_list { config { name: "a" base_path: 3 } }'),
        (ModelServerConfig, "model_config_list { config { model_version_policy { latest { } all { } } } }"),
        (MonitoringConfig, "prometheus_config { enable: maybe }"),
    ],
)
def test_mistakes_would_be_found(message, text):
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text, message())
