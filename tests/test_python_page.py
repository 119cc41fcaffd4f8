"""The blocks of docs/python.md work one after the other, as one script."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from building import surroundings

import rlstages

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


def blocks():
    return re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_every_function_that_the_page_lists_is_exported():
    listed = re.findall(r"^\| `(\w+)\(", PAGE, flags=re.MULTILINE)
    functions = {name for name in rlstages.__all__ if name.islower() and callable(getattr(rlstages, name))}

    assert set(listed) | {"load_demonstrations"} == functions


@pytest.mark.slow
def test_the_blocks_work_in_their_order(here):
    script = here / "from_python.py"
    body = textwrap.indent("\n".join(blocks()), "    ")
    script.write_text(f'if __name__ == "__main__":\n{body}')

    done = subprocess.run(
        [sys.executable, script], cwd=here, env=surroundings(here), capture_output=True, text=True, timeout=600
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"^tune (reached|missed) after", done.stdout, flags=re.MULTILINE), done.stdout
    assert "\nPPO\n" in done.stdout and " events\n" in done.stdout
    assert re.search(r"^(wins|ahead|level|behind|loses) ", done.stdout, flags=re.MULTILINE), done.stdout
    assert (here / "runs" / "compared" / "compare.html").is_file() and (here / "runs" / "swept" / "sweep.csv").is_file()
    assert re.search(r"\{'max_steps': '21000'\} (reached|missed)", done.stdout), done.stdout
