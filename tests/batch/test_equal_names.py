"""diffgen.batch.session: what is known before a model is loaded."""

from pathlib import Path
from typing import Any

import pytest

from diffgen.batch.files import BadFile
from diffgen.batch.session import Session


def opened(folder: Path, lines: str, **given: Any) -> Session:
    (folder / "p.txt").write_text(lines)
    file = str(folder / "p.txt")
    return Session.open([], {"output": f"{folder}/o/", "prompt_file": file, "seed": "5"} | given)


@pytest.mark.parametrize(
    ("lines", "given", "said"),
    [
        ("a\nb\na --steps 3\n", "overwrite", "p.txt:3: its name is that of line 1: a-5.png"),
        ("a\nb\na --steps 3\n", "skip_existing", "p.txt:3: its name is that of line 1: a-5.png"),
        (
            "b\na --steps 3,4\n",
            "skip_existing",
            "p.txt:2: its name is that of another picture of this line: a-5.png",
        ),
    ],
)
def test_pictures_that_would_lose_their_names_are_refused(
    tmp_path: Path, lines: str, given: str, said: str
) -> None:
    with pytest.raises(BadFile) as raised:
        opened(tmp_path, lines, **{given: True})
    (line,) = raised.value.lines
    assert line.endswith(said)


@pytest.mark.parametrize(
    ("lines", "given"), [("a\na\n", {}), ("a --steps 3,4\nb\n", {"overwrite": True})]
)
def test_names_that_get_numbers_may_be_equal(tmp_path: Path, lines: str, given: Any) -> None:
    assert opened(tmp_path, lines, **given).plan.count >= 2
