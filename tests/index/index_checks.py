"""What is asked of every index alike."""

import threading

import numpy as np


def assert_threads_agree(index, queries) -> None:
    """Many threads that search at once get the answers that one gets."""
    expected = index.search(queries, k=5).numbers
    answers: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: answers.append(index.search(queries, k=5).numbers)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all((answer == expected).all() for answer in answers)
