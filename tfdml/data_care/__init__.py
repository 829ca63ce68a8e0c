"""What is wrong with labelled images before a model is trained on them: duplicates, leaks, doubtful labels, bad files.

Near-duplicates need imagehash: `pip install 'tfdml[report]'`.
"""

from __future__ import annotations

from tfdml.data_care.check import check
from tfdml.data_care.data_report import DataReport, DuplicateGroup
from tfdml.data_care.near_duplicates import NearDuplicate, grey_square, near_duplicates

__all__ = ["DataReport", "DuplicateGroup", "NearDuplicate", "check", "grey_square", "near_duplicates"]
