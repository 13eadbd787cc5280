"""The engine to be: loaded in the background, kept with its alias, and closed at the end."""

import logging
import threading
from pathlib import Path
from typing import Any, Literal

from qm9flow.config import ServeConfig
from qm9flow.errors import Qm9FlowError, RegistryError
from qm9flow.registry.find import FoundModel, alias_of, check_bundle, find_model
from serving import metrics
from serving.engine import Engine
from serving.handover import Handover
from serving.model import Model
from serving.swapping import LONGEST_PAUSE_S, Swapper

logger = logging.getLogger("bentoml.qm9flow")

CLOSE_SECONDS = 5.0
"""How long a look at the registry may take at the end; its thread dies with the process."""

Status = Literal["loading", "ready", "failed"]


class Runtime:
    """The engine, from its first loading on.

    Attributes:
        settings: What is served.
        is_stopping: Whether the process has been told to end.
    """

    def __init__(self, settings: ServeConfig) -> None:
        """Start loading in the background.

        Args:
            settings: What to load.
        """
        self.settings = settings
        self.is_stopping = False
        self._engine: Engine | None = None
        self._swapper: Swapper | None = None
        self._handover = Handover(settings.handover)
        self._error: Exception | None = None
        self._closed = threading.Event()
        self._decided = threading.Event()
        self._thread = threading.Thread(target=self._live, name="model", daemon=True)
        self._thread.start()

    @property
    def engine(self) -> Engine | None:
        """The engine, once it is ready."""
        return self._engine

    @property
    def status(self) -> Status:
        """How far loading has come."""
        if self._engine is not None:
            return "ready"
        return "loading" if self._error is None else "failed"

    def describe(self) -> dict[str, Any]:
        """How the alias stands that the service follows, if it follows one."""
        return self._swapper.describe() if self._swapper else {"watch": None, "next": None}

    def wait(self, timeout_s: float) -> Engine:
        """Wait for the first loading.

        Args:
            timeout_s: Seconds at most.

        Returns:
            The engine.

        Raises:
            Qm9FlowError: It cannot be loaded.
            TimeoutError: Not in that time.
        """
        if not self._decided.wait(timeout_s):
            raise TimeoutError(f"the model was not loaded within {timeout_s:g} s")
        if self._engine is None:
            assert self._error is not None
            raise self._error
        return self._engine

    def stop(self) -> None:
        """Say that the process is about to end; requests are answered until it does."""
        self.is_stopping = True

    def close(self) -> None:
        """End what runs."""
        self._closed.set()
        self._thread.join(CLOSE_SECONDS)
        if self._engine is not None:
            self._engine.close()

    def _live(self) -> None:
        """All that the background thread does, from the first loading to the end."""
        logger.info("loading the model: /readyz says 503 not_ready until it is there")
        if not self._first() or self._engine is None:
            return
        alias = alias_of(self.settings.model)
        if alias is not None:
            self._swapper = self._follow(self._engine, alias)
            while not self._closed.is_set():
                self._look(self._swapper)
                self._handover.keep(self._engine.found)
                self._closed.wait(self.settings.poll_seconds)

    def _first(self) -> bool:
        """Load; a registry that is not there yet may come, a folder will not change."""
        pause_s = self.settings.poll_seconds
        while not self._closed.is_set():
            if self._try():
                return True
            if not self._may_come():
                return False
            self._closed.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return False

    def _may_come(self) -> bool:
        try:
            return alias_of(self.settings.model) is not None
        except RegistryError:  # no address of a model, today or tomorrow
            return False

    def _try(self) -> bool:
        try:
            engine = Engine(self._find(), self.settings)
        except Exception as error:
            if isinstance(error, Qm9FlowError):
                logger.error("the model cannot be served: %s", error)
            else:
                logger.exception("the model cannot be served")
            self._error = error
            self._decided.set()
            return False
        logger.info("ready: %s from %s", engine.identity(), engine.found.bundle)
        metrics.set_version(engine.found.version)
        self._engine = engine
        self._decided.set()
        self._handover.note(engine.found)
        return True

    def _follow(self, engine: Engine, alias: str) -> Swapper:
        from qm9flow.registry.watch import AliasWatch  # mlflow takes a second to import

        settings = self.settings
        alone = engine.found.version is None  # the pretrained model stands in
        watch = AliasWatch(alias, settings.tracking_uri, may_be_missing=alone)
        return Swapper(
            engine.live,
            watch,
            lambda found: Model(found, settings),
            settings.poll_seconds,
            self._handover.note,
        )

    def _look(self, swapper: Swapper) -> None:
        try:
            swapper.look()
        except Exception:
            logger.exception("looking for another model broke down")

    def _find(self) -> FoundModel:
        given = self._handover.read() or _given(self.settings)
        if given is not None:
            try:
                # Verified when it was fetched; this process may have been started again long after.
                check_bundle(given.bundle)
                return given
            except RegistryError as error:
                logger.error("%s is fetched anew: %s", given.label, error)
        found = find_model(self.settings.model, self.settings.tracking_uri)
        if found.remark:
            logger.warning(found.remark)
        return found


def _given(settings: ServeConfig) -> FoundModel | None:
    """What the starter of the service has found already."""
    if settings.bundle is None:
        return None
    return FoundModel(Path(settings.bundle), settings.version, settings.alias)
