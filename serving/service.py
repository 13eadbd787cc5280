"""The BentoML service: `bentoml serve serving.service:QM9Flow`, or better `qm9flow serve`.

BentoML starts, supervises and stops the processes and builds containers; the routes, limits, keys,
metrics and the access log are those of `serving.app`.
"""

import sys

import bentoml
from bentoml.exceptions import BentoMLException

from serving import metrics
from serving.front import Front
from serving.runtime import Runtime
from serving.settings import read_settings
from serving.stopping import on_stop

BENTOML_SECONDS = 300
"""BentoML's own limit of a request, whose answer has another shape: ours always comes first. Not
longer, because it keeps a timer for every request until then.
"""

SWITCH_SECONDS = 0.001
"""After which one thread of Python lets another one run: a lane whose network has ended waits less
for the answers of others to be written. With Python's own 5 ms, two cores answer 8% fewer requests
of 64 molecules."""


def current_runtime() -> Runtime | None:
    """The runtime of the service that this process runs.

    Returns:
        None before BentoML has started it.
    """
    try:
        worker: Worker = bentoml.get_current_service()
    except BentoMLException:
        return None
    return worker.runtime


class Worker:
    """Predict QM9's properties of molecules."""

    def __init__(self) -> None:
        """Load the model in the background; `/readyz` says when it is there."""
        if QM9Flow.config.get("workers") in (None, 1):
            metrics.stay_in_memory()
        sys.setswitchinterval(SWITCH_SECONDS)
        settings = read_settings()
        self.runtime = Runtime(settings)
        on_stop(self.runtime.stop, settings.linger_seconds)

    @bentoml.on_shutdown
    def close(self) -> None:
        """End the processes that make geometries."""
        self.runtime.close()


QM9Flow = bentoml.service(
    Worker,
    name="qm9flow",
    traffic={"timeout": BENTOML_SECONDS},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},  # sent nowhere, and a sixth of the time of a small request
)
QM9Flow.add_asgi_middleware(Front, current=current_runtime)
