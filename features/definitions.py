"""Every Feast object of this project: `feast apply` registers what stands here.

Entities: `user` by its own id; `item` and `query` by the 64-bit id that records hold (features.record.entity_id).
The view `user_sequence` is tagged as a sequence: the project's online stores take a written value as a delta and append
it natively. `cap` is the number of newest records kept of a user.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Bytes, Int64, String

from features import history
from features.settings import settings


def _source(table: str) -> FileSource:
    return FileSource(
        name=f"history_{table}",
        path=str(settings().history / table),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
    )


user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="whose history it is")
item = Entity(name="item", join_keys=["item"], value_type=ValueType.INT64, description="entity_id of its key")
query = Entity(name="query", join_keys=["query"], value_type=ValueType.INT64, description="entity_id of its text")

stream = Entity(name="stream", join_keys=["stream"], value_type=ValueType.STRING, description="`topic/partition`")

user_sequence = FeatureView(
    name="user_sequence",
    entities=[user],
    ttl=timedelta(0),
    schema=[Field(name="user_id", dtype=String), Field(name="sequence", dtype=Bytes)],
    source=_source(history.EVENTS),
    tags={"sequence": "append", "cap": "100000"},
    description="Searches and browses of a lifetime; codec: features.record",
)

item_content = FeatureView(
    name="item_content",
    entities=[item],
    ttl=timedelta(0),
    schema=[
        Field(name="item_id", dtype=String),
        Field(name="title", dtype=String),
        Field(name="category", dtype=String),
        Field(name="brand", dtype=String),
        Field(name="attributes", dtype=String),
        Field(name="text_vector", dtype=Bytes),
        Field(name="image_vector", dtype=Bytes),
    ],
    source=_source(history.ITEMS),
    description="What an item is: from its newest `item` event",
)

query_text = FeatureView(
    name="query_text",
    entities=[query],
    ttl=timedelta(0),
    schema=[Field(name="text", dtype=String)],
    source=_source(history.QUERIES),
    description="The words of a query, lower case, single spaces",
)

stream_state = FeatureView(
    name="stream_state",
    entities=[stream],
    ttl=timedelta(0),
    schema=[
        Field(name="text", dtype=String),
        Field(name="offset", dtype=Int64),
        Field(name="time_ms", dtype=Int64),
    ],
    source=_source("state"),  # stays empty: this is known online only
    description="Whose store this is, and how far the stream has been applied: features.state",
)

ctr_v1 = FeatureService(
    name="ctr_v1",
    features=[user_sequence, item_content, query_text],
    description="What the click model v1 reads",
)
