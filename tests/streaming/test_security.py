"""Clients with the settings of SEMINAR_KAFKA_CONFIG: what the file may hold, and a real broker that asks for a password."""

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient

from features.errors import SeminarError
from streaming import clients, security, topics
from streaming.producer import Producer

from .apache import needs_kafka
from .conftest import Secured, caught_up, event, wait

HIDDEN = "hunter2:#'{}"


def written(folder: Path, settings: Any) -> Path:
    file = folder / f"kafka-{len(list(folder.glob('*.yaml')))}.yaml"
    file.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
    return file


SASL = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": "shop",
    "sasl_plain_password": HIDDEN,
}


def test_every_client_takes_every_setting() -> None:
    for kind in (KafkaConsumer, KafkaProducer, KafkaAdminClient):
        assert set(security.NAMES) <= set(kind.DEFAULT_CONFIG)


def test_settings_are_read_and_the_environment_fills_them_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").write_text("x")
    monkeypatch.setenv("WORD", HIDDEN)
    monkeypatch.setenv("CHECK", "false")
    given = {**SASL, "sasl_plain_password": "a${WORD}b", "ssl_cafile": "ca.pem", "ssl_check_hostname": "${CHECK}"}
    found = security.read(written(tmp_path, {**given, "request_timeout_ms": 9000, "client_id": "x"}))
    assert found["sasl_plain_password"] == f"a{HIDDEN}b"
    assert found["ssl_cafile"] == str(tmp_path / "ca.pem")
    assert found["ssl_check_hostname"] is False
    assert found["request_timeout_ms"] == 9000
    assert HIDDEN not in repr(found) + str(found) + f"{found['sasl_plain_password']}"
    assert security.read(written(tmp_path, "")) == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({**SASL, "sasl_plain_pasword": HIDDEN}, ["'sasl_plain_pasword'", "is no setting", "sasl_plain_password"]),
        ({**SASL, "acks": 0}, ["'acks'", "is no setting"]),
        ({**SASL, "bootstrap_servers": "x"}, ["'bootstrap_servers'", "is no setting"]),
        ({**SASL, "sasl_plain_password": 12345}, ["'sasl_plain_password'", "is no text"]),
        ({**SASL, "sasl_plain_password": None}, ["'sasl_plain_password'", "is no text"]),
        ({**SASL, "sasl_plain_password": ""}, ["'sasl_plain_password'", "is empty"]),
        ({**SASL, "sasl_plain_password": "${NO_SUCH_VARIABLE}"}, ["'sasl_plain_password'", "NO_SUCH_VARIABLE"]),
        ({k: v for k, v in SASL.items() if k != "sasl_plain_password"}, ["'sasl_plain_password'", "is missing"]),
        ({k: v for k, v in SASL.items() if k != "sasl_mechanism"}, ["'sasl_mechanism'", "is missing"]),
        ({k: v for k, v in SASL.items() if k != "security_protocol"}, ["'sasl_mechanism'", "means nothing", "SASL_SSL"]),
        ({**SASL, "security_protocol": HIDDEN}, ["'security_protocol'", "SASL_PLAINTEXT"]),
        (
            {**SASL, "security_protocol": "SASL_PLAINTEXT", "ssl_check_hostname": True},
            ["'ssl_check_hostname'", "means nothing"],
        ),
        ({**SASL, "ssl_cafile": "nowhere.pem"}, ["'ssl_cafile'", "nowhere.pem", "no file"]),
        ({**SASL, "ssl_check_hostname": "perhaps"}, ["'ssl_check_hostname'", "neither true nor false"]),
        ({**SASL, "request_timeout_ms": "soon"}, ["'request_timeout_ms'", "no number"]),
        (f"sasl_plain_password: '{HIDDEN}\nx: [", ["is no YAML", "line"]),
        (f"sasl_plain_password {HIDDEN.replace(':', '')}", ["no names and values"]),
    ],
)
def test_what_is_wrong_with_the_file_is_said_without_the_secret(tmp_path: Path, settings: Any, words: list[str]) -> None:
    with pytest.raises(SeminarError) as caught:
        security.read(written(tmp_path, settings))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "hunter2" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMINAR_KAFKA_CONFIG", str(tmp_path / "none.yaml"))
    with pytest.raises(SeminarError, match=r"none\.yaml.*cannot be read"):
        clients.consumer("127.0.0.1:1")


def configured(secured: Secured, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> str:
    """The listener's address, with the environment set for it."""
    sasl = {**SASL, "sasl_plain_password": secured.password, "ssl_cafile": "authority.pem"}
    given = {name: value for name, value in {**sasl, **settings}.items() if value is not None}
    monkeypatch.setenv("SEMINAR_KAFKA_CONFIG", str(written(secured.folder, given)))
    return secured.kafka.addresses["SASL"]


class TestOnABroker:
    pytestmark = needs_kafka

    def test_from_producer_to_history(
        self, secured: Secured, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, caplog: Any
    ) -> None:
        """Topics and a producer by PLAIN, the real `seminar consume` by SCRAM; the password is in no output."""
        monkeypatch.setenv("THE_PASSWORD", secured.password)
        settings = {"sasl_plain_password": "${THE_PASSWORD}", "client_id": "shop-1"}
        bootstrap = configured(secured, monkeypatch, sasl_mechanism="SCRAM-SHA-512", **settings)
        consuming = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "consume", "--bootstrap", bootstrap, "--group", "secured", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            configured(secured, monkeypatch, **settings)
            with caplog.at_level(logging.DEBUG, "kafka.admin"):
                assert topics.plan(bootstrap) == []
            with caplog.at_level(logging.INFO, "kafka"), Producer(bootstrap, "test") as producer:
                for i in range(100):
                    producer.send(event(i))
            wait(caught_up(bootstrap, "secured"))
        finally:
            consuming.send_signal(signal.SIGTERM)
            out, err = consuming.communicate(timeout=30)
        assert sum(json.loads(out.splitlines()[-1])["events"].values()) >= 100
        assert "Authenticated as shop via SASL / SCRAM-SHA-512" in err
        said = "".join([out, err, *capfd.readouterr()])
        said += "".join(
            r.getMessage() for r in caplog.records if r.levelno > logging.DEBUG or "configuration" in r.getMessage()
        )
        assert "Starting KafkaAdminClient with configuration" in said
        assert secured.password not in said
        assert repr(secured.password)[1:-1] not in said

    def test_a_wrong_password_is_one_sentence(self, secured: Secured, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
        bootstrap = configured(secured, monkeypatch, sasl_plain_password=HIDDEN)
        for make in (clients.consumer, clients.producer, clients.admin):
            with pytest.raises(SeminarError, match="refused the user 'shop'") as caught:
                make(bootstrap)
            assert caught.value.value == bootstrap
            assert HIDDEN not in repr(caught.value) + str(caught.value)
        assert HIDDEN not in "".join(capfd.readouterr())

    def test_the_command_says_it_in_one_line(self, secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
        bootstrap = configured(secured, monkeypatch, sasl_plain_password=HIDDEN)
        run = subprocess.run(
            [sys.executable, "-m", "cli.main", "topics", "plan", "--bootstrap", bootstrap],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 1
        assert run.stdout == ""
        (line,) = run.stderr.splitlines()
        assert "refused the user 'shop'" in line
        assert HIDDEN not in line

    def test_a_certificate_of_another_authority(self, secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
        bootstrap = configured(secured, monkeypatch, ssl_cafile="stranger.pem")
        for make in (clients.consumer, clients.producer, clients.admin):
            with pytest.raises(SeminarError, match=r"certificate that is not trusted.*ssl_cafile"):
                make(bootstrap)

    def test_a_certificate_of_another_host(self, secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
        bootstrap = configured(secured, monkeypatch).replace("127.0.0.1", "localhost")
        with pytest.raises(SeminarError, match=r"certificate that is not trusted.*localhost"):
            clients.admin(bootstrap)
        bootstrap = configured(secured, monkeypatch, ssl_check_hostname=False).replace("127.0.0.1", "localhost")
        clients.admin(bootstrap).close()

    def test_a_mechanism_that_the_broker_has_not(self, secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
        bootstrap = configured(secured, monkeypatch, sasl_mechanism="SCRAM-SHA-256")
        with pytest.raises(SeminarError, match=r"by SCRAM-SHA-256.*sasl_mechanism"):
            clients.admin(bootstrap)

    def test_tls_on_a_plain_listener_and_plain_on_a_tls_listener(
        self, secured: Secured, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clients, "PATIENCE_MS", 500)
        configured(secured, monkeypatch)
        with pytest.raises(SeminarError, match=r"does not answer as SASL_SSL.*security_protocol"):
            clients.admin(secured.bootstrap)
        monkeypatch.delenv("SEMINAR_KAFKA_CONFIG")
        with pytest.raises(SeminarError, match="SEMINAR_KAFKA_CONFIG if it expects TLS"):
            clients.admin(secured.kafka.addresses["SASL"])

    def test_a_client_certificate(self, secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
        mutual = secured.kafka.addresses["MUTUAL"]
        tls = {"security_protocol": "SSL", "ssl_cafile": "authority.pem"}
        key = {"ssl_certfile": "client.crt", "ssl_keyfile": "client.key", "ssl_password": "of the key"}
        monkeypatch.setenv("SEMINAR_KAFKA_CONFIG", str(written(secured.folder, {**tls, **key})))
        with Producer(mutual, "test") as producer:
            producer.send(event(0))
        assert producer.acknowledged == 1
        monkeypatch.setattr(clients, "PATIENCE_MS", 500)
        monkeypatch.setenv("SEMINAR_KAFKA_CONFIG", str(written(secured.folder, tls)))
        with pytest.raises(SeminarError, match="does not answer as SSL"):
            clients.admin(mutual)
