"""The example of docs/tracking.md runs as it stands there."""

import csv
import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text(encoding="utf-8")


def test_the_example_pauses_where_it_says_and_writes_its_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    said = re.search(r"print\(.*\)  # (.*)", block)[1]

    exec(compile(block, "example", "exec"), {"__name__": "example"})  # noqa: S102

    assert capsys.readouterr().out.splitlines()[-1] == said
    rows = list(csv.reader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert {"clone/loss", "rollout/return"} <= {name for _, _, name, _ in rows}
    assert max(int(step) for step, *_ in rows) < 8_000
