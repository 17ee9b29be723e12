"""Runs `opcod` commands, each in a process of its own, without each importing torch anew: it forks after the imports.

Reads one job a line, `{"arguments": [...], "log": path, "fault": null or what `faulty.arm` takes}`, and replies by two
lines: the process's id when it has begun, and its status when it has ended, negative where a signal ended it.
"""

import json
import os
import signal
import sys
import traceback
from importlib import import_module

from faulty import arm

from opcod import cli

for name in ("opcod.commands", "transformers.models.llama.modeling_llama", "peft.tuners.lora", "fsspec"):
    import_module(name)


def child(job):
    """What the process does that was forked; it ends here."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    status = 0
    try:
        if job["fault"]:
            arm(**job["fault"])
        cli.main(job["arguments"])
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            child(json.loads(line))
        print(process, flush=True)
        _, ended = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)
