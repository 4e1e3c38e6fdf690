"""What only Redis does: servers that die and come back, TLS and passwords, refusals."""

import datetime
import ipaddress
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from features import redis_scripts
from features.errors import SeminarError
from features.online import Online
from features.repository import apply, open_store
from features.settings import REPOSITORY
from tests.features.conftest import Cluster, RedisServer, choose, make, until

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
SECRET = "o'p e:n#1\"0"


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that is not applied yet, and the name of its store's file."""
    (tmp_path / "var").mkdir()
    monkeypatch.setenv("SEMINAR_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("SEMINAR_ONLINE_STORE", str(tmp_path / "store.yaml"))
    return tmp_path / "store.yaml"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis", *DURABLE)
    try:
        yield server.start()
    finally:
        server.stop()


def times(online: Online, user: str) -> list[int]:
    found = online.sequence(user)
    return list(found[0]["time"].tolist()) if found else []


def test_a_server_that_was_killed_has_every_acknowledged_append(server: RedisServer, fresh: Path) -> None:
    choose([server], fresh)
    apply()
    online = Online()
    for i in range(200):
        online.append({f"u{i % 3}": make([i])})
    online.forget("u0", 100)
    server.kill()
    server.start()
    assert server.client().script_exists(*redis_scripts._NAMES.values()) == [False] * 3
    online.append({"u0": make([1000]), "u1": make([1000])})  # the scripts are gone, and are given again
    assert times(online, "u0") == [*range(102, 200, 3), 1000]
    assert times(online, "u1") == [*range(1, 200, 3), 1000]
    assert times(online, "u2") == [*range(2, 200, 3)]


@pytest.mark.long
def test_a_dead_server_and_a_wrong_certificate_are_named(server: RedisServer, fresh: Path, tmp_path: Path) -> None:
    choose([server], fresh)
    apply()
    online = Online()
    online.append({"u": make([1])})
    server.kill()
    for late in (online, Online()):
        with pytest.raises(SeminarError, match=f"{server.address}.* does not answer"):
            late.append({"u": make([2])})
    server.start()
    online.append({"u": make([2])})
    assert times(online, "u") == [1, 2]
    certificate, key = _certificate(tmp_path)
    tls = RedisServer(tmp_path / "tls", ssl=True, ssl_ca_certs=str(certificate))
    tls._options = _tls(tls.port, certificate, key)
    try:
        tls.start()
        choose([tls], fresh, connection_string=f"{tls.address},ssl=true")
        apply()
        with pytest.raises(SeminarError, match="certificate verify failed"):
            Online().append({"u": make([2])})
    finally:
        tls.stop()


def test_users_of_other_primaries_go_on_while_one_is_dead(tmp_path: Path, fresh: Path) -> None:
    cluster = Cluster(tmp_path / "cluster", *DURABLE)
    try:
        cluster.start()
        choose(cluster.nodes, fresh)
        apply()
        online, users = Online(), [f"user-{i}" for i in range(30)]
        for i in range(20):
            online.append({user: make([i]) for user in users})
        dead = cluster.nodes[1]
        lost = {user for user in users if any(dead.client().scan_iter(f"*r*{user}"))}
        assert 0 < len(lost) < len(users)
        dead.kill()
        for reader in (online, Online()):  # one that knew the cluster whole, and one that starts now
            for user in users:
                if user in lost:
                    with pytest.raises(SeminarError, match="online_store"):
                        reader.append({user: make([100])})
                    with pytest.raises(SeminarError, match="online_store"):
                        reader.sequence(user)
                    break
            for user in set(users) - lost:
                reader.append({user: make([100])})
                assert times(reader, user) == [*range(20), 100]
        dead.start()
        until(cluster.ready, "the cluster")
        online.append({user: make([200]) for user in users})
        for user in users:
            assert times(online, user) == [*range(20), *([100] if user not in lost else []), 200]
    finally:
        cluster.stop()


def test_tls_and_password_pass_through_and_are_never_shown(
    tmp_path: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = _certificate(tmp_path)
    client = {"ssl": True, "ssl_ca_certs": str(certificate), "password": SECRET}
    server = RedisServer(tmp_path / "tls", **client)
    server._options = (*_tls(server.port, certificate, key), "--requirepass", SECRET)
    settings = f"{server.address},ssl=true,ssl_ca_certs={certificate}"
    try:
        server.start()
        choose([], fresh, connection_string=settings + ",password=${STORE_PASSWORD}", redis_type="redis")
        with pytest.raises(SeminarError, match="STORE_PASSWORD"):
            apply()
        monkeypatch.setenv("STORE_PASSWORD", SECRET)
        apply()
        online = Online()
        online.append({"u": make([1])})
        assert times(online, "u") == [1]
        for file in (tmp_path / "var").rglob("*"):
            assert not file.is_file() or SECRET.encode() not in file.read_bytes()
        assert SECRET not in repr(open_store().config.online_store)
        broken = {
            "refuses user or password": settings + ",password=${STORE_PASSWORD}x",
            "passwrd": settings + ",passwrd=${STORE_PASSWORD}",
            "no Redis Cluster|does not answer": settings + ",password=${STORE_PASSWORD}x,cluster",
        }
        for says, connection in broken.items():
            cluster = connection.endswith(",cluster")
            kind = "redis_cluster" if cluster else "redis"
            choose([], fresh, connection_string=connection.removesuffix(",cluster"), redis_type=kind)
            apply()
            with pytest.raises(SeminarError, match=says) as caught:
                Online().append({"u": make([2])})
            assert SECRET not in "".join(traceback.format_exception(caught.value))
    finally:
        server.stop()


def test_settings_that_lose_rows_are_refused(server: RedisServer, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_PASSWORD", SECRET)
    secret = f"{server.address},password=${{STORE_PASSWORD}}"
    for settings, says in (({"key_ttl_seconds": 60}, "key_ttl_seconds"), ({"skip_dedup": True}, "skip_dedup")):
        choose([server], fresh, connection_string=secret, **settings)
        with pytest.raises(SeminarError, match=says) as caught:
            apply()
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    choose([server], fresh, connection_string=secret, unknown=1)
    with pytest.raises(Exception, match="unknown") as invalid:
        apply()
    assert SECRET not in "".join(traceback.format_exception(invalid.value))
    choose([server], fresh)
    apply()
    for policy in ("allkeys-lru", "volatile-ttl"):
        server.client().config_set("maxmemory-policy", policy)
        with pytest.raises(SeminarError, match=f"{policy}.*noeviction"):
            Online().sequence("u")
    server.client().config_set("maxmemory-policy", "noeviction")
    assert Online().sequence("u") is None


def test_a_full_server_says_so(server: RedisServer, fresh: Path) -> None:
    choose([server], fresh)
    apply()
    online = Online()
    online.append({"u": make([1])})
    server.client().config_set("maxmemory", 1)
    with pytest.raises(SeminarError, match="no memory left"):
        online.append({"u": make([2])})
    server.client().config_set("maxmemory", 0)
    online.append({"u": make([2])})
    assert times(online, "u") == [1, 2]


def test_the_example_is_a_store(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMINAR_ONLINE_STORE", str(REPOSITORY / "features" / "redis.yaml"))
    section = yaml.safe_load((REPOSITORY / "features" / "redis.yaml").read_text())["online_store"]
    from features.store_redis import SequenceRedisOnlineStore, SequenceRedisOnlineStoreConfig

    config = SequenceRedisOnlineStoreConfig(**section)
    assert SequenceRedisOnlineStore._parse_connection_string(config.connection_string)[0] == [
        {"host": "127.0.0.1", "port": "6379"}
    ]
    passwords = "host:1,password=0123,username=1e5,db=2"
    assert SequenceRedisOnlineStore._parse_connection_string(passwords)[1] == {
        "password": "0123",
        "username": "1e5",
        "db": 2,
    }
    fresh.write_text("online_store: []")
    monkeypatch.setenv("SEMINAR_ONLINE_STORE", str(fresh))
    with pytest.raises(SeminarError, match=r"redis\.yaml"):
        apply()
    monkeypatch.setenv("SEMINAR_ONLINE_STORE", str(fresh) + ".missing")
    with pytest.raises(SeminarError, match="SEMINAR_ONLINE_STORE"):
        apply()


def _tls(port: int, certificate: Path, key: Path) -> tuple[str, ...]:
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate))
    return ("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", *files)


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "server.pem", folder / "server.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
