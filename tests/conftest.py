"""Settings of every test: few threads, no network, properties tried the same way each time."""

import os
import signal

# Before torch is imported: small networks are slower on many threads than on two, and two
# processes of one thread each (make test) run the suite faster than one process of two.
os.environ.setdefault(
    "OMP_NUM_THREADS",
    str(min(1 if "PYTEST_XDIST_WORKER" in os.environ else 2, os.cpu_count() or 1)),
)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from hypothesis import settings

settings.register_profile("tercet", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tercet")

# A shell starts what runs behind a `&` with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
