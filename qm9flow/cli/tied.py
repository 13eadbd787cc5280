"""BentoML's command line for as long as the process that started it lives.

Whoever is killed cannot end its children: a server would stay, with its port and its memory, and
nobody would know of it. So it watches standard input, a pipe that closes with its other end.
"""

import os
import runpy
import signal
import threading

_STDIN = 0


def main() -> None:
    """Run `bentoml` with this process's arguments; end politely when standard input does."""
    threading.Thread(target=_end_with_stdin, name="tied", daemon=True).start()
    runpy.run_module("bentoml", run_name="__main__", alter_sys=True)


def _end_with_stdin() -> None:
    # Not sys.stdin, whose lock the thread would keep from the interpreter when that ends.
    while os.read(_STDIN, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
