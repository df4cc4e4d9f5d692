"""Settings of every test: few threads, no network, properties tried the same way each time."""

import os
import signal

# Before torch is imported: small networks are slower on many threads than on two. Of several
# processes (make test) each has one: with two each, that wait awake, a training took 84 s instead
# of 7. They have inherited what the first process has set.
os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
os.environ |= {"OMP_NUM_THREADS": "1"} if "PYTEST_XDIST_WORKER" in os.environ else {}
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from hypothesis import settings

settings.register_profile("tercet", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tercet")

# A shell starts what runs behind a `&` with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
