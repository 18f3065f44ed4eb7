"""A command in a pseudo terminal: what it writes, and what stands there in the end."""

import os
import pty
import subprocess

from helpers.engine import places, progress


def in_terminal(command, **environment):
    """What a command writes to a terminal of 80 columns."""
    terminal, end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment}
    process = subprocess.Popen(command, stdin=end, stdout=end, env=environment, cwd=places.TOP)
    os.close(end)
    written = b""
    try:
        while part := os.read(terminal, 2**16):
            written += part
    except OSError:  # nobody has it open any more
        pass
    os.close(terminal)
    assert process.wait() == 0
    return written.decode().replace("\r\n", "\n")


def left_on_screen(written):
    """The lines that a terminal shows in the end."""
    return [line.split(progress.WIPE)[-1] for line in written.rstrip("\n").split("\n")]
