from __future__ import annotations

import re

import pytest
from image_files import encoded, picture
from recipe_runs import run


@pytest.mark.slow
@pytest.mark.one_stack
def test_facenet():
    small = ["--steps", 2, "--classes", 5, "--examples", 4, "--negatives", 10, "--far", 0.01, "--seed", 1]
    output = run("facenet.py", "--data", "rendered_catalogue", *small)
    for name in ("random", "semi_hard", "untrained"):
        share = r"([\d.]+)% ± [\d.]+%"
        line = re.search(rf" *{name}: VAL@FAR=0.01 {share}, accuracy {share} \(accepted if d\^2 <= ", output)
        assert 0 <= float(line[1]) <= 100
        assert 40 < float(line[2]) <= 100
    assert re.search(r"semi_hard: after +2 steps [\d.]+% of all triplets are active", output)
    gain = re.search(r"semi-hard minus random negatives: ([+-][\d.]+) points of VAL@FAR=0.01", output)
    values = {name: float(value) for name, value in re.findall(r"(random|semi_hard): VAL@FAR=0.01 ([\d.]+)%", output)}
    assert float(gain[1]) == pytest.approx(values["semi_hard"] - values["random"], abs=0.06)


@pytest.mark.parametrize("name", ["facenet.py", "deepid2.py"])
def test_too_few_classes_to_judge_on(name, tmp_path):
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        for each in range(4):
            (tmp_path / str(number) / f"{each}.png").write_bytes(encoded(picture(seed=4 * number + each), "PNG"))
    with pytest.raises(SystemExit, match="classes are kept to judge on: expected at least 8"):
        run(name, "--data", tmp_path, "--classes", 2)
