"""`qm9flow serve`: the champion over HTTP, until Ctrl-C."""

import signal
from types import FrameType

import click

from qm9flow.cli import extras
from qm9flow.cli.params import tracking_option
from qm9flow.cli.show import remark, say
from qm9flow.config import Device, ServeConfig
from qm9flow.errors import ConfigError, InferenceError

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""All as Ctrl-C: the server has a session of its own. SIGINT too, which a shell's background
processes ignore unless they ask for it."""
_EXAMPLE = '{"molecules": [{"smiles": "CCO"}], "targets": ["gap", "u0_atom"]}'


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=3000,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--model",
    default="champion",
    show_default=True,
    help="An alias, a version's number, a bundle's folder, or pretrained.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="auto takes a GPU where there is one.",
)
@click.option(
    "--require-gpu", is_flag=True, help="Refuse to start on a CPU; same as --device cuda."
)
@tracking_option
def command(
    *,
    host: str,
    port: int,
    model: str,
    device: Device,
    require_gpu: bool,
    tracking_uri: str | None,
) -> None:
    """Serve a registered model over HTTP with BentoML; where none is, the pretrained one.

    The service has no keys: on another address than 127.0.0.1, whoever reaches the port may use
    it.

    \b
    Example:
      qm9flow serve --port 3000
    """
    from qm9flow.cli.server import address, running_server
    from qm9flow.registry.find import find_model

    extras.require("serve")
    if require_gpu and device == "cpu":
        raise ConfigError("--require-gpu and --device cpu exclude each other: leave one out")
    host, port = address(host, port)
    found = find_model(model, tracking_uri)
    remark(found.remark)
    config = ServeConfig(
        model=model,
        bundle=str(found.bundle),
        version=found.version,
        alias=found.alias,
        device="cuda" if require_gpu else device,
    )
    before = {number: signal.signal(number, _interrupt) for number in _ENDING}
    try:
        with running_server(config, host, port) as server:
            server.wait_until_ready()
            say(
                f"Serving {found.name} {found.label} at {server.url}\n\n"
                f"  curl {server.url}/predict -H 'Content-Type: application/json' \\\n"
                f"    -d '{_EXAMPLE}'\n\n"
                f"What it answers: {server.url}/docs.json. Ctrl-C ends it."
            )
            status = server.wait()
        raise InferenceError(f"the server ended by itself with status {status}: see its log above")
    except KeyboardInterrupt:
        click.echo("\nThe server has ended.", err=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
