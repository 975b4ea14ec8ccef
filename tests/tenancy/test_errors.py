import copy
import pickle

import pytest

from tenancy import errors
from tenancy.errors import TenancyError, WrongTenantError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TenancyError)]


def test_error_shows_what_was_found_and_one_step() -> None:
    error = WrongTenantError("the session belongs to A", hint="make a new session")

    assert str(error) == "the session belongs to A (hint: make a new session)"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_error_survives_a_process_boundary(kind: type[TenancyError]) -> None:
    error = kind("found", hint="step")
    error.add_note("seen by the worker")

    received = pickle.loads(pickle.dumps(error))

    assert type(received) is kind
    assert (received.message, received.hint, received.__notes__) == ("found", "step", ["seen by the worker"])
    assert str(copy.copy(received)) == "found (hint: step)"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_error_says_in_a_line_when_it_is_raised(kind: type[TenancyError]) -> None:
    assert kind.__doc__
    assert len(kind.__doc__.splitlines()) == 1


def test_hint_cannot_be_left_out() -> None:
    with pytest.raises(TypeError, match="hint"):
        TenancyError("found")  # type: ignore[call-arg]
