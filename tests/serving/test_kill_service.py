"""The whole service, killed with SIGKILL while callers change items over HTTP, and started again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_nothing_acknowledged_over_http_is_lost_by_kill_9(tmp_path):
    """`kill_service.py FOLDER --kills 200` does the same for longer."""
    command = [sys.executable, str(Path(__file__).with_name("kill_service.py")), str(tmp_path), "--kills", "8"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["lost"] == []
    assert report["acknowledged"] > 8
    assert report["in_flight"] > 0
