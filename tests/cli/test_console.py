import logging
import warnings

import pytest

from diffgen.cli.console import kept_warnings, logged_notes, print_error, print_note


def test_names_of_others_cannot_pass_for_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("cannot read a\x1b[2J\nerror: fake")
    print_note("b\rc")
    assert capsys.readouterr().err == "error: cannot read a\\x1b[2J\\nerror: fake\nnote: b\\rc\n"


@pytest.mark.parametrize("verbose", [False, True])
def test_warnings_of_libraries_are_for_verbose(
    verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with kept_warnings(verbose), logged_notes(verbose):
        warnings.simplefilter("always")
        warnings.warn("std(): degrees of freedom", stacklevel=1)
        logging.getLogger("some.library").warning("odd")
        logging.getLogger("diffgen").warning("ours")
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "note: ours"
    assert len(lines) == (3 if verbose else 1)
    assert all(line.startswith("note: ") for line in lines)
