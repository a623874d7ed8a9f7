"""Keeping the machine awake, up to the system call."""

import os
from types import SimpleNamespace

from darkbloom_provider.service.awake import Assertion, Inhibited, awake_here


class Call:
    """A function as ctypes shows it, which remembers."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.calls: list[tuple[object, ...]] = []

    def __call__(self, *arguments: object) -> object:
        self.calls.append(arguments)
        return self.answer(*arguments)


def libraries(code: int = 0):
    texts = iter(range(100, 200))
    foundation = SimpleNamespace(
        CFStringCreateWithBytes=Call(lambda *_: next(texts)), CFRelease=Call(lambda *_: None)
    )

    def create(_kind, _level, _name, made):
        made._obj.value = 7
        return code

    iokit = SimpleNamespace(
        IOPMAssertionCreateWithName=Call(create), IOPMAssertionRelease=Call(lambda *_: 0)
    )
    return foundation, iokit


def test_one_assertion_is_made_and_given_back_once():
    foundation, iokit = libraries()
    awake = Assertion(foundation, iokit)

    assert awake.hold()
    assert awake.hold()
    awake.release()
    awake.release()

    assert len(iokit.IOPMAssertionCreateWithName.calls) == 1
    assert iokit.IOPMAssertionCreateWithName.calls[0][:3] == (100, 255, 101)
    assert iokit.IOPMAssertionRelease.calls == [(7,)]
    made = [call[1] for call in foundation.CFStringCreateWithBytes.calls]
    assert made[0] == b"PreventUserIdleSystemSleep"
    assert foundation.CFRelease.calls == [(100,), (101,)]


def test_a_refusal_is_no_assertion_and_leaks_nothing():
    foundation, iokit = libraries(code=-536870206)
    awake = Assertion(foundation, iokit)

    assert not awake.hold()
    awake.release()

    assert iokit.IOPMAssertionRelease.calls == []
    assert len(foundation.CFRelease.calls) == 2


def test_on_linux_it_is_looked_who_started_us(tmp_path):
    parent = tmp_path / str(os.getppid())
    assert not Inhibited(tmp_path).hold()
    parent.mkdir()
    (parent / "comm").write_text("bash\n")
    assert not Inhibited(tmp_path).hold()
    (parent / "comm").write_text("systemd-inhibit\n")
    assert Inhibited(tmp_path).hold()


def test_a_system_without_iokit_says_that_nothing_is_prevented():
    assert not awake_here("darwin").hold()
