"""What both online stores agree on: which views are sequences, when their rows are tidied, and what a plain row is.

A row of a plain view is one byte string: the event time, then each feature by name. Of two rows of an entity the greater
string wins, so that writes commute: the newer event time, and of equal times the greater content, feature by feature in
the order of their names (null before empty, then as bytes). `features.history` resolves ties by the same rule.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from feast import FeatureView
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

from features.record import CAP, decode, encode, normalise

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Found = tuple[datetime | None, dict[str, Value] | None]

SLACK = 1024
"""Records that a sequence's row may grow by before it is looked at; then by half of itself, and an eighth above its cap."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NULL, _BYTES, _STRING, _OTHER = b"\0", b"\1", b"\2", b"\3"


def is_sequence(view: FeatureView) -> bool:
    """Whether a view's written values are deltas to append."""
    return bool(view.tags.get("sequence") == "append")


def cap_of(view: FeatureView) -> int:
    """How many newest records of a user the view keeps (its tag `cap`)."""
    return int(view.tags.get("cap", CAP))


def look_at(mark: int, cap: int) -> int:
    """Above how many records a row is to be tidied that had `mark` canonical ones when last looked at."""
    return min(mark + max(SLACK, mark // 2), cap + max(SLACK, cap // 8))


def entity(config: RepoConfig, entity_key: EntityKey) -> bytes:
    """The bytes of an entity's key."""
    return _serialised(entity_key.SerializeToString(), config.entity_key_serialization_version)


def text_of(config: RepoConfig, key: bytes) -> str:
    """The id of an entity whose key is one text: the inverse of `entity`."""
    found: str = deserialize_entity_key(key, config.entity_key_serialization_version).entity_values[0].string_val
    return found


@lru_cache(maxsize=1 << 16)
def _serialised(entity_key: bytes, version: int) -> bytes:
    # Feast's function costs more than a SQLite statement, and the same users come again and again.
    key: bytes = serialize_entity_key(EntityKey.FromString(entity_key), version)
    return key


def sequence_found(feature: str, blob: bytes, cap: int) -> Found:
    """What a read answers: the blob as it is when it is canonical, else normalised."""
    records, fence = decode(blob)
    kept = normalise(records, fence, cap)
    if kept is not records:
        blob = encode(kept, fence)
    newest = int(kept["time"][-1]) if len(kept) else fence
    return _EPOCH + timedelta(milliseconds=newest), {feature: Value(bytes_val=blob)}


def pack(timestamp: datetime, values: Mapping[str, Value]) -> bytes:
    """A plain row as bytes that order as the rule says; an event time without a zone is UTC (Feast's contract)."""
    aware = timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)
    parts = [((aware - _EPOCH) // _MICROSECOND + (1 << 63)).to_bytes(8)]
    for name in sorted(values):
        parts += [_bytes(name.encode(), _STRING), _element(values[name])]
    return b"".join(parts)


def unpack(row: bytes) -> tuple[datetime, dict[str, Value]]:
    """The inverse of `pack`; the event time is UTC."""
    values, at = {}, 8
    while at < len(row):
        name, at = _read(row, at)
        value, at = _read(row, at)
        values[name.string_val] = value
    return _EPOCH + (int.from_bytes(row[:8]) - (1 << 63)) * _MICROSECOND, values


def plain_found(view: FeatureView, row: bytes | None) -> Found:
    """What a read answers: every feature of the view, null where the row knows none; (None, None) for no row."""
    if row is None:
        return None, None
    timestamp, values = unpack(row)
    return timestamp, {feature.name: values.get(feature.name) or Value() for feature in view.features}


def _element(value: Value) -> bytes:
    kind = value.WhichOneof("val")
    if kind is None:
        return _NULL
    if kind == "bytes_val":
        return _bytes(value.bytes_val, _BYTES)
    if kind == "string_val":
        return _bytes(value.string_val.encode(), _STRING)
    return _bytes(value.SerializeToString(deterministic=True), _OTHER)


def _bytes(raw: bytes, kind: bytes) -> bytes:
    # A zero byte ends the element, so that a prefix sorts first; within it, zero is 00 ff: no element starts with ff.
    return kind + raw.replace(b"\0", b"\0\xff") + b"\0"


def _read(row: bytes, at: int) -> tuple[Value, int]:
    kind = row[at : at + 1]
    if kind == _NULL:
        return Value(), at + 1
    end = row.index(b"\0", at + 1)
    while row[end + 1 : end + 2] == b"\xff":
        end = row.index(b"\0", end + 2)
    raw = row[at + 1 : end].replace(b"\0\xff", b"\0")
    if kind == _BYTES:
        return Value(bytes_val=raw), end + 1
    if kind == _STRING:
        return Value(string_val=raw.decode()), end + 1
    return Value.FromString(raw), end + 1
