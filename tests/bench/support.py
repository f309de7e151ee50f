"""What the tests of the harness share: its modules, and measurements made up here."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
from harness import session  # noqa: E402


def ok(*seconds, checksum="c0ffee", **extra):
    """Results of one workload, a round each; None is a round without one."""
    return [None if s is None else session.Result("ok", s, s, checksum, extra=dict(extra)) for s in seconds]


def over(rounds=1):
    return [session.Result("over")] + [None] * (rounds - 1)
