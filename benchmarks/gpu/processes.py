"""Commands that get so many seconds and no more, with all that they start."""

import os
import signal
import subprocess
import tempfile

LAST_WORDS = 10  # seconds from a polite end to a hard one


def finish(command: list[str], seconds: float) -> tuple[int | None, str, str]:
    """Run a command: its exit status, or None where it was ended, and what it wrote by then."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
        status = None
        try:
            status = process.wait(max(seconds, 1))
        except subprocess.TimeoutExpired:
            pass
        finally:  # an interrupt ends it, too
            _end(process)
        out.seek(0), err.seek(0)
        return status, out.read(), err.read()


def _end(process: subprocess.Popen[bytes]) -> None:
    for how, patience in ((signal.SIGTERM, LAST_WORDS), (signal.SIGKILL, None)):
        if process.poll() is None:
            os.killpg(process.pid, how)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
