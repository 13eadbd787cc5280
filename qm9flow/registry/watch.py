"""Which version an alias points at, asked again and again by a process that runs for months."""

from qm9flow import locations
from qm9flow.errors import RegistryError
from qm9flow.registry.client import refuse_silent_server
from qm9flow.registry.find import FoundModel
from qm9flow.registry.versions import alias_numbers, fetch, resolve


class AliasWatch:
    """One alias of one store.

    Attributes:
        alias: The alias.
    """

    def __init__(
        self, alias: str, tracking_uri: str | None = None, *, may_be_missing: bool = False
    ) -> None:
        """Ask nothing yet.

        Args:
            alias: Such as `champion`.
            tracking_uri: None takes the environment's, or the database in the current folder.
            may_be_missing: Whether a database that is not there yet counts as an empty one.
        """
        self.alias = alias
        self._uri = locations.tracking_uri(tracking_uri)
        self._may_be_missing = may_be_missing

    def ask(self) -> int | None:
        """Where the alias points now; one short question.

        Returns:
            The version's number; None where the alias points at none.

        Raises:
            RegistryError: The store does not answer.
        """
        database = locations.sqlite_file(self._uri)
        if self._may_be_missing and database is not None and not database.exists():
            return None
        refuse_silent_server(self._uri)
        return alias_numbers(self._uri).get(self.alias)

    def fetch(self, number: int) -> FoundModel:
        """Copy a version's bundle here, verified by its checksum.

        Args:
            number: From `ask`.

        Returns:
            The model.

        Raises:
            RegistryError: It is missing or damaged, or the store does not answer.
        """
        version = resolve(number, self._uri)
        if version.number != number:
            raise RegistryError(f"there is no version {number} any more")
        return FoundModel(fetch(version, tracking_uri=self._uri), number, self.alias)
