"""Airflow DAGs: thin files; the work is in `model` and `features`."""
