"""What a table in object storage needs beyond one in a folder: bounded patience, and errors that a person can act on.

delta-rs retries a request for up to three minutes by itself, and some of its calls hold Python's lock meanwhile. Whoever
reads or writes tables here comes again later anyway, so a request is given up after half a minute unless the options say
otherwise. Options are those of delta-rs (https://docs.rs/object_store: ``AmazonS3ConfigKey``, ``AzureConfigKey``,
``GoogleConfigKey``, ``ClientConfigKey``). Invariant: an error names the address without its query, which may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from servelens.errors import Invalid, ServelensError, Unavailable

_PATIENCE: Final = {"max_retries": "5", "retry_timeout": "30s"}
_POLARS_RETRY_MS: Final = 30_000
_IMPATIENCE: Final = {"max_retries": "0", "retry_timeout": "1s", "timeout": "2s", "connect_timeout": "1s"}
_LONGEST: Final = 400
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_QUERY: Final = re.compile(r"(https?://[^\s?]+)\?\S*")
_OPTIONS: Final = "tables.storage_options"

_WRONG_OPTIONS: Final = (
    "Generic Config error",
    "Failed to parse config",
    "URL scheme is not allowed",
    "Account must be specified",
    "Invalid Access Key",
    "Unable to decode service account",
    "Unable to open service account",
)
_REFUSED: Final = (
    "401 Unauthorized",
    "403 Forbidden",
    "lacked the necessary privileges",
    "lacked valid authentication",
    "169.254.169.254",  # the machine's own credentials were asked for, since none were given
    "metadata.google.internal",
)
_NO_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")


def is_remote(uri: str) -> bool:
    """Whether the table is not in a folder of this machine."""
    return "://" in uri


def refuse_unusable(uri: str) -> None:
    """Raise :class:`~servelens.errors.Invalid` for an address that delta-rs knows and cannot serve.

    ``uc://``: deltalake 1.6.6 waits for ever once the catalog has given its credentials, with Python's lock held.
    """
    if uri.partition("://")[0].lower() == "uc" and is_remote(uri):
        raise Invalid(
            "tables cannot be reached through Unity Catalog",
            field="tables.root",
            fix="Name the bucket itself and register the tables as external ones; docs/storage.md says how.",
        )


def patient_options(uri: str, options: Mapping[str, str] | None) -> dict[str, str] | None:
    """``options`` with an end to the patience of a request; ``None`` when there is nothing to say."""
    if not is_remote(uri):
        return dict(options) if options else None
    given = dict(options or {})
    names = {name.lower() for name in given}
    return {**{name: value for name, value in _PATIENCE.items() if name not in names}, **given}


def impatient_options(options: Mapping[str, str] | None) -> dict[str, str]:
    """``options`` for a look that must not take long."""
    return {
        **{name: value for name, value in (options or {}).items() if name not in _IMPATIENCE},
        **_IMPATIENCE,
    }


def polars_options(options: Mapping[str, str] | None) -> dict[str, str | int]:
    """What polars calls differently, to be laid over ``options``: it takes numbers. Raises Invalid."""
    if not options:
        return {}
    given = {name.lower(): value for name, value in options.items()}
    try:
        retries = int(given.get("max_retries", _PATIENCE["max_retries"]))
    except ValueError as error:
        raise Invalid(f"{given['max_retries']!r} is not a number", field=f"{_OPTIONS}.max_retries") from error
    return {"max_retries": retries, "retry_timeout_ms": _POLARS_RETRY_MS}


def storage_error(error: Exception, uri: str) -> ServelensError:
    """The error to raise for one of delta-rs: one line, and the setting to look at where that is known."""
    text = str(error)
    said = _one_line(text)
    if not is_remote(uri):
        return Unavailable(f"the table's storage failed: {said}", field=uri)
    if "Unknown scheme" in text:
        scheme = uri.partition("://")[0]
        return Invalid(
            f"{scheme}:// is no storage that tables can be in",
            field="tables.root",
            fix="Use a folder, s3://, gs:// or abfss://.",
        )
    if any(words in text for words in _WRONG_OPTIONS):
        return Invalid(
            f"the storage of {uri} cannot be used so: {said}",
            field=_OPTIONS,
            fix="See docs/storage.md for the options of each storage.",
        )
    if any(words in text for words in _REFUSED):
        return Unavailable(
            f"the storage of {uri} does not accept the credentials: {said}",
            field=_OPTIONS,
            fix="Correct the credentials, or what they may do; docs/storage.md says what is needed.",
        )
    if any(words in text for words in _NO_BUCKET):
        return Unavailable(
            f"there is no such bucket: {said}", field=uri, fix="Create it, or correct tables.root."
        )
    return Unavailable(f"the table's storage failed: {said}", field=uri)


def _one_line(text: str) -> str:
    plain = _QUERY.sub(r"\1?…", _COLOURS.sub("", text)).replace("↳", ":")
    line = re.sub(r"\s*:\s+", ": ", " ".join(plain.split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
