"""Who is champion: promotion through the gate, and the way back.

The aliases move in an order that leaves a valid champion if the process dies in between.
"""

from dataclasses import dataclass
from typing import Literal

from qm9flow.errors import RegistryError
from qm9flow.registry.client import Connection, connect
from qm9flow.registry.gate import Decision, judge
from qm9flow.registry.versions import (
    MODEL_NAME,
    Version,
    list_versions,
    load_evidence,
    resolve,
    verify,
)

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
GATE, GATE_PASSES = "gate", "gate/passes"


@dataclass(frozen=True)
class Promotion:
    """What became of a version that was to be champion.

    Attributes:
        version: The version, with its aliases afterwards.
        alias: `champion`, or `challenger` if the gate refused it; `without alias` if it was judged
            earlier and has lost its alias since.
        decision: What the gate said.
        is_forced: Whether it became champion against the gate.
    """

    version: Version
    alias: Literal["champion", "challenger", "without alias"]
    decision: Decision
    is_forced: bool


def promote(version: Version, force: bool = False, tracking_uri: str | None = None) -> Promotion:
    """Make a version champion if it passes the gate, else challenger.

    The old champion becomes `previous`.

    Args:
        version: The candidate.
        force: Make it champion whatever the gate says; its bundle must be sound all the same.
        tracking_uri: None takes the environment's, or the database in the current folder.

    Returns:
        What became of it, and by which figure.

    Raises:
        RegistryError: Its bundle is damaged, or the store refuses.
    """
    connection = connect(tracking_uri)
    champion = _at(CHAMPION, connection)
    verify(version, connection.uri)
    decision = _decide(version, champion, connection)
    is_champion = champion is not None and champion.number == version.number
    passes = decision.passes or force or is_champion
    if is_champion:
        _drop_challenger(version, connection)
    elif passes:
        _make_champion(version, champion, connection)
    else:
        _set_alias(CHALLENGER, version, connection)
    # What the gate said of a champion stays on record, unless its promotion was killed before that.
    if not (is_champion and GATE_PASSES in version.tags):
        _note(version, decision, connection)
    return Promotion(
        version=resolve(version.number, connection.uri),
        alias="champion" if passes else "challenger",
        decision=decision,
        is_forced=passes and not decision.passes,
    )


def judged_before(version: Version) -> Promotion | None:
    """What became of a version that the gate has judged, as it stands now.

    Args:
        version: The version.

    Returns:
        What the gate said then and the alias of now; None if it was not judged yet.
    """
    if GATE_PASSES not in version.tags:
        return None
    passed = version.tags[GATE_PASSES] == "true"
    alias: Literal["champion", "challenger", "without alias"] = "without alias"
    if CHAMPION in version.aliases:
        alias = "champion"
    elif CHALLENGER in version.aliases:
        alias = "challenger"
    figure = f"judged before; then: {version.tags.get(GATE, 'no figure')}"
    decision = Decision(passed, "noted", figure)
    return Promotion(version, alias, decision, is_forced=alias == "champion" and not passed)


def rollback(tracking_uri: str | None = None) -> Version:
    """Make the previous champion champion again; the present one becomes `previous`.

    Args:
        tracking_uri: None takes the environment's, or the database in the current folder.

    Returns:
        The champion afterwards.

    Raises:
        RegistryError: There is no other champion to go back to, its bundle is damaged, or the
            store refuses.
    """
    connection = connect(tracking_uri)
    champion = resolve(CHAMPION, connection.uri)
    previous = _at(PREVIOUS, connection)
    if previous is None or previous.number == champion.number:
        raise RegistryError(
            f"{champion.label} has no previous champion to go back to; "
            "`qm9flow promote VERSION --force` makes any version champion"
        )
    verify(previous, connection.uri)
    _set_alias(CHAMPION, previous, connection)
    _set_alias(PREVIOUS, champion, connection)
    _drop_challenger(previous, connection)
    return resolve(CHAMPION, connection.uri)


def _at(alias: str, connection: Connection) -> Version | None:
    versions = list_versions(connection.uri)
    return next((version for version in versions if alias in version.aliases), None)


def _decide(version: Version, champion: Version | None, connection: Connection) -> Decision:
    if champion is not None and champion.number == version.number:
        return Decision(True, "champion", f"{version.label} is champion already")
    try:
        theirs = load_evidence(champion, connection.uri) if champion else None
        return judge(load_evidence(version, connection.uri), theirs)
    except RegistryError as error:
        # A champion whose files are lost must not end a study; `force` is the way past it.
        return Decision(False, "evidence", str(error))


def _make_champion(version: Version, champion: Version | None, connection: Connection) -> None:
    if champion is not None:
        _set_alias(PREVIOUS, champion, connection)
    _set_alias(CHAMPION, version, connection)
    _drop_challenger(version, connection)


def _drop_challenger(version: Version, connection: Connection) -> None:
    """A champion challenges nobody."""
    if CHALLENGER in version.aliases:
        connection.call(
            "removing an alias",
            lambda: connection.client.delete_registered_model_alias(MODEL_NAME, CHALLENGER),
        )


def _set_alias(alias: str, version: Version, connection: Connection) -> None:
    connection.call(
        f"making {version.label} {alias}",
        lambda: connection.client.set_registered_model_alias(
            MODEL_NAME, alias, str(version.number)
        ),
    )


def _note(version: Version, decision: Decision, connection: Connection) -> None:
    """Keep with the version what the gate said of it last."""
    for key, value in ((GATE_PASSES, str(decision.passes).lower()), (GATE, decision.figure)):
        connection.call(
            "noting the gate's decision",
            lambda key=key, value=value: connection.client.set_model_version_tag(  # type: ignore[misc]
                MODEL_NAME, str(version.number), key, value
            ),
        )
