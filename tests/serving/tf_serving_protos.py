"""The messages that TF-Serving reads its configuration files with, so that our files can be parsed as it parses them.

Names, numbers and types as in tensorflow/serving: `config/model_server_config.proto`,
`config/file_system_storage_path_source.proto`, `config/monitoring_config.proto` and
`servables/tensorflow/session_bundle_config.proto`. Logging and custom configurations are left out: a file that uses them fails.
"""

from __future__ import annotations

from tfdml_serving.embedding.messages import Messages, build_messages

CONFIGURATION: Messages = {
    "Int64Value": {"value": (1, "int64")},
    "StringValue": {"value": (1, "string")},
    "BoolValue": {"value": (1, "bool")},
    "Latest": {"num_versions": (1, "uint32")},
    "All": {},
    "Specific": {"versions": (1, "repeated int64")},
    "ServableVersionPolicy": {
        "latest": (100, "oneof policy_choice Latest"),
        "all": (101, "oneof policy_choice All"),
        "specific": (102, "oneof policy_choice Specific"),
    },
    "ModelConfig": {
        "name": (1, "string"),
        "base_path": (2, "string"),
        "model_platform": (4, "string"),
        "model_version_policy": (7, "ServableVersionPolicy"),
        "version_labels": (8, "map int64"),
    },
    "ModelConfigList": {"config": (1, "repeated ModelConfig")},
    "ModelServerConfig": {"model_config_list": (1, "oneof config ModelConfigList")},
    "BatchingParameters": {
        "max_batch_size": (1, "Int64Value"),
        "batch_timeout_micros": (2, "Int64Value"),
        "max_enqueued_batches": (3, "Int64Value"),
        "num_batch_threads": (4, "Int64Value"),
        "thread_pool_name": (5, "StringValue"),
        "allowed_batch_sizes": (6, "repeated int64"),
        "pad_variable_length_inputs": (7, "bool"),
        "enable_large_batch_splitting": (8, "BoolValue"),
        "max_execution_batch_size": (9, "Int64Value"),
    },
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, "PrometheusConfig")},
}

_built = build_messages(CONFIGURATION, "tensorflow.serving.configuration")
BatchingParameters = _built["BatchingParameters"]
ModelServerConfig = _built["ModelServerConfig"]
MonitoringConfig = _built["MonitoringConfig"]
