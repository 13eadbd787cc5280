"""One service over HTTP, and how its processes are told of it."""

from dataclasses import dataclass
from typing import Annotated

from qm9flow.config.choices import Device
from qm9flow.config.limits import at_least, between, check_limits


@dataclass(frozen=True)
class ServeConfig:
    """One service over HTTP."""

    model: str = "champion"
    """An alias, a version's number, a bundle's folder, or `pretrained`."""
    bundle: str | None = None
    """The folder of a bundle that was fetched already; none means that `model` is looked up."""
    version: int | None = None
    """The fetched bundle's version."""
    alias: str | None = None
    """The fetched bundle's alias."""
    handover: str | None = None
    """A file of this service alone, in which its processes note which model answers: one that is
    started again begins with that."""
    tracking_uri: str | None = None
    """The store whose alias `model` is followed; none means that of the environment."""
    poll_seconds: Annotated[float, between(0.05, 86_400)] = 10.0
    """Seconds between two looks at where the alias points; a version or folder is never left."""
    device: Device = "auto"
    """`cuda` requires a GPU; `auto` takes one where there is one."""
    threads: Annotated[int | None, at_least(1)] = 1
    """Threads inside one run of the network on a CPU; none means one for each usable core. Small
    networks gain little from a second one, and requests run side by side anyway."""
    conformer_workers: Annotated[int | None, at_least(1)] = None
    """Processes that make geometries from SMILES; none means one for each usable core."""
    max_molecules: Annotated[int, between(1, 10**9)] = 1000
    """Molecules of a request, at most."""
    max_body_bytes: Annotated[int, between(1, 10**9)] = 8 * 1024 * 1024
    """Bytes of a request's body, at most."""
    max_atoms: Annotated[int, between(1, 10**9)] = 256
    """Atoms of a molecule, at most."""
    max_requests: Annotated[int, between(1, 10**9)] = 64
    """Predictions under way or waiting, at most; more are told to come back."""
    max_waiting_bytes: Annotated[int, between(1, 10**12)] = 64 * 1024 * 1024
    """Bytes of the bodies of all requests that are read or answered, at most."""
    molecule_seconds: Annotated[float, between(0.01, 240)] = 10.0
    """Seconds for the geometry of one SMILES."""
    geometry_seconds: Annotated[float, between(0.01, 240)] = 30.0
    """Seconds for the geometries of one request; SMILES not done by then have timed out."""
    request_seconds: Annotated[float, between(0.01, 240)] = 60.0
    """Seconds for a request."""
    keys_file: str | None = None
    """A file of API keys; none means that of the environment, or no keys."""
    access_log: str | None = None
    """The file of the access log; none means standard error."""
    linger_seconds: Annotated[float, between(0, 600)] = 1.0
    """Seconds between being told to stop, which `/readyz` says at once, and taking no more
    connections."""
    stop_seconds: Annotated[float, between(1, 3600)] = 30.0
    """Seconds that requests under way then have to end."""

    def __post_init__(self) -> None:
        check_limits(self)


SERVE_ENVIRONMENT = "QM9FLOW_SERVING"
"""The variable that hands a `ServeConfig` to the processes of a service, as a JSON object."""
