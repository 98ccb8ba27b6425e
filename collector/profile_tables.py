"""Columns of ``<prefix>_payload_profile_metrics``, ``<prefix>_payload_drift_metrics`` and ``<prefix>_sketches``.

The first two are those of Databricks' monitoring metric tables
(https://docs.databricks.com/en/lakehouse-monitoring/monitor-output.html), names, types and order unchanged,
so that dashboards and alerts written for them run here; drift has more at its end: two distances of text embeddings,
``reference``, which names what the window was compared with, the test of the embeddings' distance, and the 95 % interval of
``domain_classifier_auc``.
``column_name`` is ``:table`` in rows about the whole table. ``logging_table_commit_version`` is the version
of the inference table that was read.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from collector.inference_table import TIMESTAMP

WHOLE_TABLE: Final = ":table"

_WINDOW: Final = pa.struct([("start", TIMESTAMP), ("end", TIMESTAMP)])
_CONFUSION: Final = pa.struct([("prediction", pa.string()), ("label", pa.string()), ("count", pa.int64())])
_PER_CLASS: Final = pa.struct(
    [
        ("one_vs_all", pa.map_(pa.string(), pa.float64())),
        ("macro", pa.float64()),
        ("weighted", pa.float64()),
    ]
)
_INTERVAL: Final = pa.struct([("low", pa.float64()), ("high", pa.float64())])
_TEST: Final = pa.struct([("statistic", pa.float64()), ("pvalue", pa.float64())])

PROFILE_SCHEMA: Final = pa.schema(
    [
        ("window", _WINDOW),
        ("log_type", pa.string()),
        ("logging_table_commit_version", pa.int32()),
        ("monitor_version", pa.int64()),
        ("granularity", pa.string()),
        ("slice_key", pa.string()),
        ("slice_value", pa.string()),
        ("column_name", pa.string()),
        ("count", pa.int64()),
        ("data_type", pa.string()),
        ("num_nulls", pa.int64()),
        ("avg", pa.float64()),
        ("quantiles", pa.list_(pa.float64())),
        ("min", pa.float64()),
        ("max", pa.float64()),
        ("stddev", pa.float64()),
        ("num_zeros", pa.int64()),
        ("num_nan", pa.int64()),
        ("min_length", pa.float64()),
        ("max_length", pa.float64()),
        ("avg_length", pa.float64()),
        ("non_null_columns", pa.list_(pa.string())),
        ("frequent_items", pa.list_(pa.struct([("item", pa.string()), ("count", pa.int64())]))),
        ("median", pa.float64()),
        ("distinct_count", pa.int64()),
        ("percent_nan", pa.float64()),
        ("percent_null", pa.float64()),
        ("percent_zeros", pa.float64()),
        ("percent_distinct", pa.float64()),
        # Of a model whose truth is known. The two intervals are ours.
        ("accuracy_score", pa.float64()),
        ("confusion_matrix", pa.list_(_CONFUSION)),
        ("precision", _PER_CLASS),
        ("recall", _PER_CLASS),
        ("f1_score", _PER_CLASS),
        ("false_positive_rate", _PER_CLASS),
        ("mean_squared_error", pa.float64()),
        ("root_mean_squared_error", pa.float64()),
        ("mean_average_error", pa.float64()),
        ("mean_absolute_percentage_error", pa.float64()),
        ("r2_score", pa.float64()),
        ("accuracy_interval", _INTERVAL),
        ("mean_average_error_interval", _INTERVAL),
    ]
)

DRIFT_SCHEMA: Final = pa.schema(
    [
        ("window", _WINDOW),
        ("granularity", pa.string()),
        ("monitor_version", pa.int64()),
        ("slice_key", pa.string()),
        ("slice_value", pa.string()),
        ("column_name", pa.string()),
        ("data_type", pa.string()),
        ("window_cmp", _WINDOW),
        ("drift_type", pa.string()),
        ("count_delta", pa.int64()),
        ("avg_delta", pa.float64()),
        ("percent_null_delta", pa.float64()),
        ("percent_zeros_delta", pa.float64()),
        ("percent_distinct_delta", pa.float64()),
        ("non_null_columns_delta", pa.struct([("added", pa.int32()), ("missing", pa.int32())])),
        ("js_distance", pa.float64()),
        ("ks_test", _TEST),
        ("wasserstein_distance", pa.float64()),
        ("population_stability_index", pa.float64()),
        ("chi_squared_test", _TEST),
        ("tv_distance", pa.float64()),
        ("l_infinity_distance", pa.float64()),
        ("embedding_distance", pa.float64()),
        ("domain_classifier_auc", pa.float64()),
        ("reference", pa.string()),
        ("embedding_test", _TEST),
        ("domain_classifier_auc_interval", pa.struct([("low", pa.float64()), ("high", pa.float64())])),
    ]
)

SKETCH_SCHEMA: Final = pa.schema(
    [
        ("request_date", pa.date32()),
        ("window", _WINDOW),
        ("granularity", pa.string()),
        ("layout", pa.string()),
        ("payload_version", pa.int64()),
        ("slice_key", pa.string()),
        ("slice_value", pa.string()),
        ("column_name", pa.string()),
        ("kind", pa.string()),
        ("data_type", pa.string()),
        ("rows", pa.int64()),
        ("sketch", pa.binary()),
    ]
)
"""Columns of ``<prefix>_sketches``: what profiles and drift are calculated from. A window's rows are about one slice and
column each; ``:table`` rows count the records. ``request_date`` is that of the window's start. A small window's sketch
holds the values themselves, so it expires with the records."""
