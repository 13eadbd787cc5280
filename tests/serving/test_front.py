"""What every request passes: its id, its key, the limits, the access log."""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.testclient import TestClient

from qm9flow.cli.main import cli
from qm9flow.config import ServeConfig
from qm9flow.config.keys import append_key, digest_of, load_keys, make_key, read_keys
from qm9flow.errors import ConfigError
from qm9flow.files import replace_file
from qm9flow.registry.find import FoundModel
from serving import access, guard
from serving.engine import Engine
from serving.front import Front
from serving.guard import Guard
from serving.loopback import refuse_foreign
from serving.requests import Note, RequestError
from serving.runtime import Runtime

ONE = {"molecules": [{"numbers": [1], "positions": [[0, 0, 0]]}], "targets": ["gap"]}
KEYED = ("/predict", "/model", "/metrics", "/nowhere")
OPEN = ("/", "/livez", "/healthz", "/readyz", "/docs.json", "/static_content/index.css")


class Loaded(Runtime):
    """A runtime with an engine that is there already."""

    def __init__(self, engine: Engine | None, settings: ServeConfig) -> None:
        self.settings = settings
        self.is_stopping = False
        self._engine = engine
        self._swapper = None
        self._error = None


@pytest.fixture(scope="module")
def engine(champion: FoundModel) -> Iterator[Engine]:
    made = Engine(champion, ServeConfig(conformer_workers=1, device="cpu", max_body_bytes=50_000))
    yield made
    made.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
def client_of(engine: Engine, log: Path) -> Callable[..., TestClient]:
    """A client of a service with some settings, as if it had come to some address."""

    def make(base_url: str = "http://127.0.0.1", **options: Any) -> TestClient:
        settings = ServeConfig(
            **{"device": "cpu", "max_body_bytes": 50_000, "access_log": str(log), **options}
        )
        engine.settings = settings
        runtime = Loaded(engine, settings)
        app = Front(Starlette(), lambda: runtime)
        return TestClient(app, base_url=base_url, raise_server_exceptions=False)

    return make


def lines(log: Path, count: int) -> list[dict[str, Any]]:
    """The log, once it has that many lines."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if log.exists() and len(log.read_text().splitlines()) >= count:
            break
        time.sleep(0.01)
    return [json.loads(line) for line in log.read_text().splitlines()]


def error(response: Any, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    body = response.json()["error"]
    assert body["code"] == code
    assert body["request_id"] == response.headers["x-request-id"]
    message: str = body["message"]
    return message


@pytest.fixture
def keyed(tmp_path: Path) -> tuple[Path, str]:
    """A file of keys, and the key in it."""
    key, line = make_key("alice")
    file = tmp_path / "keys.txt"
    append_key(file, line)
    return file, key


def test_with_keys_all_but_a_few_paths_need_one(
    client_of: Callable[..., TestClient], keyed: tuple[Path, str]
) -> None:
    file, key = keyed
    client = client_of(keys_file=str(file))
    for path in OPEN:
        assert client.get(path).status_code == 200, path
    for path in KEYED:
        for headers in ({}, {"X-API-Key": key[:-1]}, {"Authorization": f"Basic {key}"}):
            response = client.get(path, headers=headers)
            error(response, 401, "unauthorized")
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
    for headers in ({"X-API-Key": key}, {"Authorization": f"bearer {key}"}):
        assert client.post("/predict", json=ONE, headers=headers).status_code == 200
        assert client.get("/model", headers=headers).status_code == 200
        assert client.get("/nowhere", headers=headers).status_code == 404


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "x" * 100_000, "Bearer \u00e4\u00f6", "Bearer a b", "\x80"]
)
def test_no_header_breaks_the_door(
    client_of: Callable[..., TestClient], keyed: tuple[Path, str], value: str
) -> None:
    client = client_of(keys_file=str(keyed[0]))
    for name in ("Authorization", "X-API-Key"):
        response = client.get("/model", headers={name: value.encode("latin-1")})
        error(response, 401, "unauthorized")


def test_a_changed_file_of_keys_counts_without_a_restart(
    client_of: Callable[..., TestClient],
    keyed: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "LOOK_SECONDS", 0.01)
    file, alice = keyed
    client = client_of(keys_file=str(file))
    bob, line = make_key("bob")

    def statuses(*expected: int) -> bool:
        """Those of alice and bob, once they are as expected."""

        def now() -> tuple[int, ...]:
            ask = [client.get("/model", headers={"X-API-Key": key}) for key in (alice, bob)]
            return tuple(answer.status_code for answer in ask)

        until = time.monotonic() + 10
        while now() != expected and time.monotonic() < until:
            time.sleep(0.01)
        return now() == expected

    def write(text: str) -> None:
        """As careful editors do: no half of it is ever read."""
        file.with_suffix(".new").write_text(text)
        file.with_suffix(".new").rename(file)

    assert statuses(200, 401)
    append_key(file, line)
    assert statuses(200, 200)
    write(f"# alice has left\n{line}\n")
    assert statuses(401, 200)
    write("what is this?")  # a slip of the hand locks nobody out, nor lets anybody in
    time.sleep(0.1)
    assert statuses(401, 200)
    file.unlink()
    time.sleep(0.1)
    assert statuses(401, 200)
    write("# nobody any more\n")
    assert statuses(401, 401)
    write(line)
    assert statuses(401, 200)


def test_keys_that_cannot_be_read_open_no_door(
    client_of: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = client_of(keys_file=str(tmp_path / "none.txt"))
    error(client.get("/model", headers={"X-API-Key": "x"}), 401, "unauthorized")
    assert client.get("/readyz").status_code == 200


def test_keys_from_the_environment(
    client_of: Callable[..., TestClient],
    keyed: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, key = keyed
    monkeypatch.setenv("QM9FLOW_API_KEYS", file.read_text())
    client = client_of()
    assert client.get("/model").status_code == 401
    assert client.get("/model", headers={"X-API-Key": key}).status_code == 200
    monkeypatch.setenv("QM9FLOW_API_KEYS", "")  # an empty secret is no open door
    assert client_of().get("/model").status_code == 401
    monkeypatch.delenv("QM9FLOW_API_KEYS")
    monkeypatch.setenv("QM9FLOW_API_KEYS_FILE", str(file))
    assert client_of().get("/model", headers={"X-API-Key": key}).status_code == 200


@pytest.mark.parametrize(
    ("host", "answers"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("[::1]", True),
        ("[::ffff:127.0.0.1]", True),
        ("172.17.0.2", False),
        ("[2001:db8::1]", False),
        ("0.0.0.0", False),
    ],
)
def test_without_keys_the_loopback_alone_is_answered(
    client_of: Callable[..., TestClient], host: str, answers: bool
) -> None:
    client = client_of(f"http://{host}")
    assert client.get("/livez").status_code == 200
    for path in ("/model", "/readyz", "/", "/docs.json"):
        response = client.get(path)
        if answers:
            assert response.status_code == 200
        else:
            assert "--make-key" in error(response, 403, "no_keys")


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("localhost:3000", True),
        ("LOCALHOST", True),
        ("127.0.0.1:3000", True),
        ("[::1]:3000", True),
        ("", True),
        ("molecules.example:3000", False),
        ("localhost.example", False),
        ("[::1]x.example", False),
        ("localhost:3000@molecules.example", False),
        ("ip6-localhost", True),
        ("192.168.1.7", False),
    ],
)
def test_without_keys_a_page_of_the_web_cannot_name_the_service_its_own(
    client_of: Callable[..., TestClient], name: str, answers: bool
) -> None:
    client = client_of("http://127.0.0.1")
    response = client.get("/model", headers={"Host": name})
    if answers:
        assert response.status_code == 200
    else:
        assert "localhost" in error(response, 403, "no_keys")
    assert client.get("/livez", headers={"Host": name}).status_code == 200


def test_a_socket_that_is_a_file_is_local() -> None:
    refuse_foreign({"type": "http", "headers": [], "server": ("/run/qm9flow.sock", None)})
    refuse_foreign({"type": "http", "headers": [], "server": None})
    with pytest.raises(RequestError):
        refuse_foreign({"type": "http", "headers": [], "server": ("fe80::1%lo", 80)})


def test_keys_are_kept_as_digests(keyed: tuple[Path, str]) -> None:
    file, key = keyed
    assert key not in file.read_text()
    assert len(key) > 40
    assert load_keys(file) == {hashlib.sha256(key.encode()).hexdigest(): "alice"}
    assert file.stat().st_mode & 0o077 == 0
    for wrong in ("", "# nothing\n", "alice", "alice:12", f"a b:{'0' * 64}", ":" + "0" * 64):
        with pytest.raises(ConfigError):
            read_keys(wrong, "here")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_keys(file.parent)
    with pytest.raises(ConfigError, match="name"):
        make_key("two words")


def test_a_key_is_made_from_the_shell(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    for name in ("alice", "bob"):
        done = CliRunner().invoke(
            cli, ["serve", "--make-key", name, "--keys", str(file)], catch_exceptions=False
        )
        assert done.exit_code == 0
        key = done.output.split()[1]
        assert load_keys(file)[hashlib.sha256(key.encode()).hexdigest()] == name
    assert len(load_keys(file)) == 2
    done = CliRunner().invoke(cli, ["serve", "--make-key", "carol"])
    words = done.output.split()
    assert read_keys(words[words.index("line") + 1], "there")


def test_a_file_of_keys_may_have_a_byte_order_mark(keyed: tuple[Path, str]) -> None:
    file, key = keyed
    file.write_bytes(b"\xef\xbb\xbf# ours\r\n" + file.read_bytes())
    append_key(file, make_key("bob")[1])
    assert sorted(load_keys(file).values()) == ["alice", "bob"]
    file.write_bytes(b"\xef\xbb\xbf" + f"alice:{digest_of(key)}\r\n".encode())
    assert load_keys(file) == {digest_of(key): "alice"}


def test_a_name_has_one_key(keyed: tuple[Path, str]) -> None:
    file, _ = keyed
    before = file.read_bytes()
    for name in ("alice", "bob"):
        if name == "bob":
            file.write_bytes(b"what is this?\n" + before)
            before = file.read_bytes()
        done = CliRunner().invoke(cli, ["serve", "--make-key", name, "--keys", str(file)])
        assert isinstance(done.exception, ConfigError)
        assert ("alice already" if name == "alice" else "line 1") in str(done.exception)
        assert str(file) in str(done.exception)
        assert done.output == ""  # no key that is worth nothing
        assert file.read_bytes() == before


@pytest.mark.parametrize("options", [(), ("--keys", "none.txt")])
def test_a_network_is_not_listened_to_without_keys(
    stores_in: Path, options: tuple[str, ...]
) -> None:
    command = ["serve", "--host", "0.0.0.0", "--port", "0", *options]
    done = CliRunner().invoke(cli, command)
    assert isinstance(done.exception, ConfigError)
    assert "key" in str(done.exception)


def test_an_answer_has_the_id_of_its_request(client_of: Callable[..., TestClient]) -> None:
    client = client_of()
    mine = client.get("/model", headers={"X-Request-ID": "job-17.a:b_c"})
    assert mine.headers["x-request-id"] == "job-17.a:b_c"
    made = {client.get("/model").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    for strange in ("a b", "x" * 65, "<script>", "\xe4", ""):
        given = client.get("/model", headers={"X-Request-ID": strange.encode("latin-1")})
        assert given.headers["x-request-id"] not in (strange, "")
    error(client.get("/nowhere", headers={"X-Request-ID": "x1"}), 404, "not_found")


def test_the_log_has_a_line_a_request(
    client_of: Callable[..., TestClient], keyed: tuple[Path, str], log: Path
) -> None:
    file, key = keyed
    client = client_of(keys_file=str(file))
    molecules = [*ONE["molecules"], {"smiles": "C1CC"}]
    client.post(
        "/predict",
        json={"molecules": molecules},
        headers={"X-API-Key": key, "X-Request-ID": "first"},
    )
    client.post("/predict?secret=1", content=b"{", headers={"X-API-Key": key})
    client.get("/made/up%0A%22{", headers={"X-API-Key": "a-secret-mistyped"})
    client.request("BREW", "/model")
    for _ in range(5):
        client.get("/readyz")
        client.get("/livez")
    first, second, third, fourth = lines(log, 4)
    assert {name: first[name] for name in first if name not in ("time", "ms")} == {
        "id": "first", "method": "POST", "route": "/predict", "status": 200,
        "client": "testclient", "key": "alice", "molecules": 2, "ok": 1, "failed": 1, "version": 1,
    }  # fmt: skip
    assert first["ms"] > 0
    assert (second["status"], second["key"], "molecules" in second) == (400, "alice", False)
    assert ("code" in first, second["code"], third["code"]) == (
        False,
        "bad_request",
        "unauthorized",
    )
    assert (third["route"], third["status"], third["key"]) == ("other", 401, None)
    assert (fourth["method"], fourth["status"]) == ("other", 401)
    text = log.read_text()
    assert key not in text
    assert "secret" not in text


def test_a_log_that_cannot_be_written_costs_no_request(
    client_of: Callable[..., TestClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = []
    monkeypatch.setattr(access.metrics, "count_lost_log_line", lambda: lost.append(1))
    for place in ("/dev/full", str(tmp_path / "no" / "such" / "folder"), str(tmp_path)):
        lost.clear()
        client = client_of(access_log=place)
        assert all(client.get("/model").status_code == 200 for _ in range(3))
        until = time.monotonic() + 10
        while len(lost) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(lost) == 3, place


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("place", ["/dev/full", "no/such/folder"])
def test_a_log_that_cannot_be_written_is_said_once_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A full disk must not fill the other log."""
    said: list[str] = []
    monkeypatch.setattr(access, "CLOSE_SECONDS", 30)
    monkeypatch.setattr(access.logger, "error", lambda text, *args: said.append(text))
    target = tmp_path / place
    monkeypatch.chdir(tmp_path)
    opened = access.AccessLog(str(target))
    for _ in range(5):
        opened.write("{}")
    opened.close()
    assert len(said) == 1


def test_a_log_that_nobody_takes_loses_lines_and_no_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(access, "MAX_WAITING", 10)
    monkeypatch.setattr(access, "CLOSE_SECONDS", 0.1)
    lost = []
    monkeypatch.setattr(access.metrics, "count_lost_log_line", lambda: lost.append(1))
    stuck = threading.Event()
    opened = access.AccessLog(str(tmp_path / "log"))
    monkeypatch.setattr(opened._handler, "emit", lambda record: stuck.wait(10))
    started = time.monotonic()
    for _ in range(100):
        opened.write("{}")
    opened.close()
    assert time.monotonic() - started < 2
    assert 80 <= len(lost) <= 90
    stuck.set()


def test_a_log_that_was_moved_is_begun_anew(log: Path) -> None:
    opened = access.AccessLog(str(log))
    opened.write("1")
    assert lines(log, 1) == [1]
    log.rename(log.with_suffix(".1"))
    opened.write("2")
    assert lines(log, 1) == [2]
    opened.close()


def test_a_line_is_ascii_and_one_line() -> None:
    line = access.line_of(Note("x", key="a\nb\u2028"), client="\ud800", route="/predict")
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["key"] == "a\nb\u2028"


def test_bodies_together_are_bounded(client_of: Callable[..., TestClient]) -> None:
    client = client_of(max_waiting_bytes=1000)
    response = client.post("/predict", content=json.dumps(ONE).ljust(2000))
    assert "memory" in error(response, 503, "busy")
    assert int(response.headers["Retry-After"]) >= 1
    assert client.post("/predict", json=ONE).status_code == 200


def test_a_service_that_is_told_to_stop_says_so_and_goes_on(
    client_of: Callable[..., TestClient],
) -> None:
    client = client_of()
    front: Any = client.app
    assert client.get("/readyz").status_code == 200
    front._current().stop()
    error(client.get("/readyz"), 503, "stopping")
    assert client.post("/predict", json=ONE).status_code == 200


@pytest.fixture
def said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[[str], list[str]]:
    """What the service's log says, once it has said some words."""
    monkeypatch.setattr(guard, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(guard, "logger", logging.getLogger("guarded"))
    caplog.set_level(logging.INFO, "guarded")

    def wait(words: str) -> list[str]:
        until = time.monotonic() + 10
        while words not in caplog.text and time.monotonic() < until:
            time.sleep(0.01)
        return [record.getMessage() for record in caplog.records if record.name == "guarded"]

    return wait


def test_what_becomes_of_the_keys_is_in_the_log_before_anybody_asks(
    keyed: tuple[Path, str], said: Callable[[str], list[str]]
) -> None:
    file, _ = keyed
    line = make_key("bob")[1]
    door = Guard(ServeConfig(keys_file=str(file)), {})
    append_key(file, line)
    assert said("keys of alice, bob")[0] == f"keys of alice, from {file}"
    file.unlink()
    gone = said("there is no file")[-1]
    assert gone.startswith(
        f"the keys read before stay (alice, bob): there is no file of keys {file}"
    )
    assert "--make-key" in gone
    replace_file(file, b"bob")  # at once: half of a change might be read, too
    said("line 1")
    replace_file(file, b"\n")
    emptied = said("no key left")
    assert emptied[-1] == f"every request is refused: there is no key left in {file}"
    time.sleep(0.1)
    assert said("no key left") == emptied  # once is enough
    door.close()


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "--make-key NAME --keys"), (b"alice:12", "line 1"), (b"\xff", "text file")],
)
def test_a_service_that_starts_without_its_keys_refuses_all_and_says_why(
    tmp_path: Path, said: Callable[[str], list[str]], content: bytes | None, words: str
) -> None:
    file = tmp_path / "keys.txt"
    if content is not None:
        file.write_bytes(content)
    door = Guard(ServeConfig(keys_file=str(file)), {})
    (message,) = said("refused")
    assert message.startswith("every request is refused: ")
    assert str(file) in message
    assert words in message
    key, line = make_key("alice")
    file.write_text(line)
    said("keys of alice")
    assert door.admit({"type": "http", "headers": [(b"x-api-key", key.encode())]}) == "alice"
    door.close()


def test_the_keys_are_read_when_the_service_starts(
    client_of: Callable[..., TestClient], tmp_path: Path, said: Callable[[str], list[str]]
) -> None:
    with client_of(keys_file=str(tmp_path / "none.txt")):
        assert "there is no file of keys" in said("refused")[0]


def test_supervisors_are_not_in_the_log_while_the_model_is_loaded(
    client_of: Callable[..., TestClient], log: Path
) -> None:
    client = client_of()
    front: Any = client.app
    runtime = front._current()
    engine, runtime._engine = runtime._engine, None
    for _ in range(3):
        error(client.get("/readyz"), 503, "not_ready")
    error(client.get("/model"), 503, "not_ready")  # a client's own
    runtime._engine = engine
    runtime.stop()
    error(client.get("/readyz"), 503, "stopping")
    runtime._engine, runtime._error = None, ConfigError("broken")
    error(client.get("/readyz"), 503, "failed")
    assert [(line["route"], line["status"]) for line in lines(log, 2)] == [
        ("/model", 503), ("/readyz", 503),
    ]  # fmt: skip


def test_metrics_tell_of_batches_domain_and_waiting(client_of: Callable[..., TestClient]) -> None:
    client = client_of()
    far = {"numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, 9]]}
    assert client.post("/predict", json={"molecules": [far]}).status_code == 200
    client.post("/predict", content=b"{")
    text = client.get("/metrics").text
    for name in (
        'qm9flow_domain_total{domain="outside"}',
        "qm9flow_batch_molecules_count",
        "qm9flow_batch_pairs_bucket",
        "qm9flow_wait_seconds_sum",
        'qm9flow_errors_total{code="bad_request"}',
        'qm9flow_waiting_molecules{stage="network"} 0.0',
        'qm9flow_waiting_molecules{stage="geometry"} 0.0',
        "qm9flow_requests_under_way 0.0",
    ):
        assert name in text, name
