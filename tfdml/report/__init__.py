"""Reports: what an embedding or a set of images is like, as one HTML file that one can show to others.

Needs jinja2, scikit-learn and imagehash: `pip install 'tfdml[report]'`. A report of a bundle loads no TensorFlow.
"""

from __future__ import annotations

from tfdml.report.data_page import write_data
from tfdml.report.embedding_page import write
from tfdml.report.findings import Findings, find
from tfdml.report.subject import Subject

__all__ = ["Findings", "Subject", "find", "write", "write_data"]
