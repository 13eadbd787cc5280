"""`qm9flow serve`: the champion over HTTP, until Ctrl-C."""

import ipaddress
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import click

from qm9flow.cli import extras
from qm9flow.cli.params import merged, tracking_option
from qm9flow.cli.show import remark, say
from qm9flow.config import ServeConfig, from_dict
from qm9flow.config.keys import (
    KEYS_ENVIRONMENT,
    KEYS_FILE_ENVIRONMENT,
    append_key,
    load_keys,
    read_keys,
)
from qm9flow.config.keys import make_key as new_key
from qm9flow.errors import ConfigError, InferenceError

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""All as Ctrl-C: the server has a session of its own. SIGINT too, which a shell's background
processes ignore unless they ask for it."""
_TOLD = ("bundle", "version", "alias", "handover")
"""What this command finds out and tells its processes."""
_EXAMPLE = '{"molecules": [{"smiles": "CCO"}], "targets": ["gap", "u0_atom"]}'


_FILE = click.Path(path_type=Path, dir_okay=False)


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
    help="An alias, a version's number, a bundle's folder, or pretrained.  [default: champion]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="auto takes a GPU where there is one.  [default: auto]",
)
@click.option(
    "--require-gpu", is_flag=True, help="Refuse to start on a CPU; same as --device cuda."
)
@click.option(
    "--keys",
    "keys_file",
    type=_FILE,
    help="File of API keys; needed to listen on other addresses than the loopback's.",
)
@click.option(
    "--make-key",
    metavar="NAME",
    help="Print a new key and its line, add the line to the file of --keys if given, and end.",
)
@click.option("--access-log", type=_FILE, help="File of the access log.  [default: standard error]")
@click.option(
    "--poll-seconds",
    type=float,
    help="Seconds between two looks at where the alias points.  [default: 10]",
)
@click.option(
    "--config",
    "config_file",
    type=_FILE,
    help="TOML or JSON file with model, device, keys_file, access_log, poll_seconds, tracking_uri "
    "and the limits (docs/serving.md).",
)
@tracking_option
def command(
    *,
    host: str,
    port: int,
    require_gpu: bool,
    make_key: str | None,
    config_file: Path | None,
    **options: Any,
) -> None:
    """Serve a registered model over HTTP with BentoML; where none is, the pretrained one.

    An alias is followed: when another version is promoted, or the last promotion rolled back, the
    service takes it without a restart. Without keys it answers on the loopback address alone.

    \b
    Example:
      qm9flow serve --port 3000
      qm9flow serve --make-key alice --keys keys.txt
      qm9flow serve --host 0.0.0.0 --keys keys.txt
    """
    if make_key is not None:
        _say_new_key(make_key, options["keys_file"])
        return
    extras.require("serve")
    wanted = _wanted(config_file, options, require_gpu)
    _serve(wanted, host, port)


def _serve(wanted: ServeConfig, host: str, port: int) -> None:
    from qm9flow.cli.server import address, running_server, with_model

    host, port = address(host, port)
    _refuse_open_door(host, wanted)
    config, found = with_model(wanted)
    remark(found.remark)
    before = {number: signal.signal(number, _interrupt) for number in ending_signals()}
    try:
        with running_server(config, host, port) as server:
            server.wait_until_ready()
            say(_greeting(f"{found.name} {found.label}", server.url, has_keys=_has_keys(wanted)))
            status = server.wait()
        raise InferenceError(f"the server ended by itself with status {status}: see its log above")
    except KeyboardInterrupt:
        click.echo("\nThe server has ended.", err=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greeting(model: str, url: str, *, has_keys: bool) -> str:
    key = ' -H "Authorization: Bearer $KEY"' if has_keys else ""
    return (
        f"Serving {model} at {url}\n\n"
        f"  curl {url}/predict{key} -H 'Content-Type: application/json' \\\n"
        f"    -d '{_EXAMPLE}'\n\n"
        f"What it answers: {url}/docs.json. Ctrl-C ends it."
    )


def _has_keys(config: ServeConfig) -> bool:
    file = config.keys_file or os.environ.get(KEYS_FILE_ENVIRONMENT)
    return bool(file) or KEYS_ENVIRONMENT in os.environ


def _wanted(config_file: Path | None, options: dict[str, Any], require_gpu: bool) -> ServeConfig:
    """What file and options say, with paths that do not depend on the current folder."""
    given = {name: str(v) if isinstance(v, Path) else v for name, v in options.items()}
    values = merged(config_file, given)
    if taken := [name for name in _TOLD if name in values]:
        raise ConfigError(
            f"{taken[0]} in {config_file} would do nothing: write model = an alias, a version's "
            "number in quotes, or a bundle's folder"
        )
    if require_gpu and values.get("device", "cuda") == "cpu":
        raise ConfigError("--require-gpu and --device cpu exclude each other: leave one out")
    if require_gpu:
        values["device"] = "cuda"
    for name in ("keys_file", "access_log"):
        if isinstance(values.get(name), str):
            values[name] = str(Path(values[name]).absolute())
    return from_dict(ServeConfig, values)


def _refuse_open_door(host: str, config: ServeConfig) -> None:
    """Whoever reaches an address without keys may use the service."""
    file = config.keys_file or os.environ.get(KEYS_FILE_ENVIRONMENT)
    if file:
        load_keys(Path(file))
    elif (text := os.environ.get(KEYS_ENVIRONMENT)) is not None:
        read_keys(text, KEYS_ENVIRONMENT)
    elif not ipaddress.ip_address(host).is_loopback:
        raise ConfigError(
            f"on {host} the service would answer anybody: make a key with `qm9flow serve "
            "--make-key NAME --keys FILE`, then add --keys FILE; or listen on 127.0.0.1"
        )


def _say_new_key(name: str, file: Path | None) -> None:
    key, line = new_key(name)
    if file is not None:
        append_key(file, line)
    where = f"added to {file}" if file else "its line for a file of keys"
    say(f"key   {key}   (shown this once)\nline  {line}   ({where})")


def ending_signals() -> list[signal.Signals]:
    """What ends the server.

    Returns:
        Not SIGHUP under `nohup`, which has it ignored: that service is to outlive its terminal.
    """
    is_to_stay = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in _ENDING if number != signal.SIGHUP or not is_to_stay]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
