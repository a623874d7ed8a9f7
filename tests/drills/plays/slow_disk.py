"""The disk of PostgreSQL takes a second for each flush: a shim stands between it and the kernel."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from darkbloom_local.stores import Postgres

from tests.drills.drill import Drill, Outcome
from tests.drills.load import Answer, grown, steady
from tests.drills.needs import LINUX, program
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import until

_CLIENTS = 6
_ANSWERS = 24
_SLOW_MS = 1000
_COMPILER = "cc"
_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Milliseconds in the file that DRILL_SLOW_MS_FILE names; read anew each time. */
static void wait_for_the_disk(void) {
    char text[16] = {0};
    const char *name = getenv("DRILL_SLOW_MS_FILE");
    int file = name ? open(name, O_RDONLY) : -1;
    if (file < 0) return;
    if (read(file, text, sizeof text - 1) > 0) {
        long ms = atol(text);
        struct timespec pause = {ms / 1000, (ms % 1000) * 1000000L};
        nanosleep(&pause, NULL);
    }
    close(file);
}
int fsync(int file) {
    wait_for_the_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}
int fdatasync(int file) {
    wait_for_the_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(file);
}
"""


async def play(stage: Stage) -> Outcome:
    """Answer with a quick disk, with one that takes a second a flush, and with a quick one."""
    shim, dial = _compiled(stage.home), stage.home / "slow-ms"
    _turn(dial, 0)
    async with stage.mesh(durable=True) as mesh:
        mesh._launcher.postgres = Postgres(
            mesh.state.root / "postgres",
            mesh.log("postgres"),
            environment={"LD_PRELOAD": str(shim), "DRILL_SLOW_MS_FILE": str(dial)},
        )
        await mesh.restart("postgres")
        await mesh.reachable()
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=12) as load:
            await until(grown(load, _ANSWERS), "answers with a quick disk")
            quick = _took_s(load.answers)
            stage.progress(f"each flush takes {_SLOW_MS} ms")
            _turn(dial, _SLOW_MS)
            at = len(load.answers)
            await until(grown(load, _ANSWERS), "answers with a slow disk", 90)
            slow = _took_s(load.answers[at + _CLIENTS :])
            stage.progress("the disk is quick again")
            begun = stage.clock.monotonic()
            _turn(dial, 0)
            await until(grown(load, 2 * _CLIENTS), "answers afterwards")
            recovery_s = stage.clock.monotonic() - begun
        toll = await ledger.toll(load.answers)
    odd = [*toll.unexpected, *(one.told() for one in load.lost)]
    if slow < quick + _SLOW_MS / 2000:
        odd.append(f"the disk was not slow: {quick:.2f} s before, {slow:.2f} s with the shim")
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=odd,
        facts={**load.facts(), "answer_s": round(quick, 2), "answer_slow_s": round(slow, 2)},
    )


def _compiled(home: Path) -> Path:
    """Build the shim where the server's account can read it."""
    source, shim = home / "slow.c", home / "slow.so"
    source.write_text(_SHIM)
    command = (_COMPILER, "-shared", "-fPIC", "-O1", "-o", str(shim), str(source), "-ldl")
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    shim.chmod(0o755)
    return shim


def _turn(dial: Path, milliseconds: int) -> None:
    """Set how long a flush takes from now on."""
    dial.write_text(str(milliseconds))
    dial.chmod(0o644)


def _took_s(answers: Sequence[Answer]) -> float:
    """Return the median time of a whole answer, hold and all."""
    return median(one.ended_at - one.asked_at for one in answers)


DRILL = Drill(
    name="slow-disk",
    claim="a disk that takes a second for each flush makes holds slow, and loses none",
    runbooks=("database", "slow-answers"),
    needs=(LINUX, program(_COMPILER)),
    limit_s=300,
    play=play,
)
