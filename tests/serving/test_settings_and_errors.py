"""The settings refuse what makes no sense, and every error is a problem document."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tfdml_serving import Settings, errors


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"port": 70000}, "port=70000"),
        ({"port": -1}, "port=-1"),
        ({"port": "80"}, "port='80'"),
        ({"tf_serving": "localhost:8501"}, "expected a URL"),
        ({"grpc": "http://localhost:8500"}, "expected host:port"),
        ({"deadline": 0}, "deadline=0"),
        ({"deadline": float("nan")}, "deadline=nan"),
        ({"max_pixels": True}, "max_pixels=True"),
        ({"queue": 1.5}, "expected an integer"),
        ({"log_level": "loud"}, "debug, info, warning, error"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(change, said):
    with pytest.raises(ValueError, match=said):
        Settings(Path("x"), **change)


def test_settings_know_whether_the_model_runs_here():
    settings = Settings("exports/products")
    assert settings.bundle == Path("exports/products")
    assert settings.embedded
    assert not settings.replace(tf_serving="http://localhost:8501").embedded
    assert not settings.replace(grpc="localhost:8500").embedded


def test_every_error_has_a_status_a_title_and_a_kind_of_its_own():
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.ServingError)]
    assert len({kind.kind for kind in classes}) == len({kind.title for kind in classes}) == len(classes) > 10
    for kind in classes:
        problem = kind("why").problem("abc")
        assert set(problem) == {"type", "title", "status", "detail", "request_id"}
        assert problem["status"] == kind.status >= 400
        assert problem["type"] == f"urn:tfdml:problem:{kind.kind}"
    assert errors.FilterError("why", 7).problem("abc")["position"] == 7
    assert errors.Overloaded("why").retry_after
    assert errors.EmbedderUnavailable("why").retry_after


def test_importing_the_service_loads_no_tensorflow():
    code = "import sys, tfdml_serving, tfdml_serving.errors; print('tensorflow' in sys.modules, 'fastapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False False\n"
