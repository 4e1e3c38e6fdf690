"""The DuckDB offline store, which refuses what must not be asked of a lifelong sequence; all else is Feast's own.

A point-in-time join would pair every label with every earlier event of its user, and materialising would write single
records where the online store takes deltas that the stream has applied already.
"""

from typing import Any, Literal

from click import ClickException
from feast import FeatureStore, FeatureView
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.repo_config import RepoConfig

from features.errors import SeminarError
from features.rows import is_sequence


class NotForSequences(SeminarError, ClickException):
    """What is refused for a sequence view; stock `feast` commands show it as one sentence, without a traceback."""

    def __init__(self, view: FeatureView, problem: str, remedy: str) -> None:
        ClickException.__init__(self, problem)
        SeminarError.__init__(self, "feature view", view.name, problem, remedy)

    def format_message(self) -> str:
        """What click shows."""
        return str(self)


class SequenceDuckDBOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """Feast's DuckDB settings."""

    type: Literal["features.offline.SequenceDuckDBOfflineStore"] = "features.offline.SequenceDuckDBOfflineStore"


class SequenceDuckDBOfflineStore(DuckDBOfflineStore):
    """Feast offline store plugin."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig, feature_views: list[FeatureView], *arguments: Any, **named: Any
    ) -> RetrievalJob:
        """Feast's point-in-time join; SeminarError for a sequence view."""
        for view in feature_views:
            if is_sequence(view):
                raise NotForSequences(
                    view,
                    "is a lifelong sequence: a point-in-time join would pair every label with every earlier event",
                    "read it once with features.history.read_sequences, and give each example its prefix",
                )
        return DuckDBOfflineStore.get_historical_features(config, feature_views, *arguments, **named)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig, data_source: DataSource, *arguments: Any, **named: Any
    ) -> RetrievalJob:
        """The newest row of each entity, for `feast materialize`; SeminarError for a sequence view's source."""
        _refuse(config, data_source)
        return DuckDBOfflineStore.pull_latest_from_table_or_query(config, data_source, *arguments, **named)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig, data_source: DataSource, *arguments: Any, **named: Any
    ) -> RetrievalJob:
        """All rows; of a sequence view's source without a period only, which is how the log is read.

        SeminarError with a period: so `feast materialize` asks, as it is by default.
        """
        if named.get("start_date") and named.get("end_date"):
            _refuse(config, data_source)
        return DuckDBOfflineStore.pull_all_from_table_or_query(config, data_source, *arguments, **named)


def _refuse(config: RepoConfig, data_source: DataSource) -> None:
    for view in FeatureStore(config=config).list_feature_views():
        if is_sequence(view) and view.batch_source == data_source:
            raise NotForSequences(
                view,
                "is a lifelong sequence and cannot be materialised: the stream appends to it",
                "rebuild it with `seminar replay`, read it with features.history.read_sequences, or name others (--views)",
            )
