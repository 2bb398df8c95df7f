"""Records on disk: a JSON file of what was measured, by class of problems. Loads no tvm.

Three places, the first that has a class wins: the user's file, in the cache folder or where `--tuning` says; then what
is shipped with edgec, measured on machines of ours. A file comes from anywhere: its size is bounded, every field is
checked, and parameters count only where `Tuning.choose` finds them among the legal ones.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgec.backends.base import Target
from edgec.backends.cache import cache_folder, write_atomically
from edgec.backends.tvm.tuning.choice import MODEL, Record, Tuning
from edgec.backends.tvm.tuning.machine import machine_of
from edgec.graph.errors import UserError

# Of what parameters mean and how kernels behave under them: to be raised where old measurements would mislead.
KERNELS = 2
SHIPPED = Path(__file__).parent / "shipped.json"
OFF = "off"  # instead of a file: the cost model alone
_FORMAT = 1
_MOST_BYTES, _MOST_RECORDS, _MOST_KEY = 8 << 20, 50_000, 400


def user_path() -> Path:
    """Where `edgec tune` keeps its records by default, and every compilation looks for them: a file for each version of
    the kernels, so that another edgec is not stopped by it.
    """
    return cache_folder() / f"tuning.{KERNELS}.json"


def find_tuning(where: str | Path | None = None) -> Tuning:
    """For a compilation: the file `where` before what is shipped, by default the user's if there is one. `off`: the
    cost model alone. UserError E0507, E0508.
    """
    if where == OFF:
        return MODEL
    path = user_path() if where is None else Path(where)
    own = read_records(path) if where is not None or path.exists() else {}
    return Tuning({**shipped_records(), **own})


@functools.cache
def shipped_records() -> Mapping[str, Record]:
    return read_records(SHIPPED)


def read_records(path: Path) -> dict[str, Record]:
    """UserError E0507 where the file cannot be read, E0508 where it is no database, damaged, or of other kernels."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError("E0507", f"cannot read the tuning database: {error.strerror}", where=str(path)) from error
    if len(data) > _MOST_BYTES:
        raise _damaged(path, f"it is larger than {_MOST_BYTES >> 20} MB")
    try:
        table = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is no JSON") from error
    if not isinstance(table, dict) or table.get("edgec_tuning") != _FORMAT:
        raise _damaged(path, "it is not what `edgec tune` writes")
    if table.get("kernels") != KERNELS:
        message = f"the tuning database is of kernels of version {table.get('kernels')!r}; these are {KERNELS}"
        raise UserError("E0508", message, where=str(path), hint="delete it, and run `edgec tune` again")
    records = table.get("records")
    if not isinstance(records, dict) or len(records) > _MOST_RECORDS:
        raise _damaged(path, "it has no table of records")
    return {_key(path, key): _record(path, key, record) for key, record in records.items()}


def write_records(path: Path, records: Mapping[str, Record], cpu: str) -> None:
    """Equal records give equal bytes. UserError E0505."""
    table = {
        "edgec_tuning": _FORMAT,
        "kernels": KERNELS,
        "cpu": cpu,
        "records": {key: _to_json(records[key]) for key in sorted(records)},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(table, indent=1) + "\n").encode())
    except OSError as error:
        message = f"cannot write the tuning database: {error.strerror}"
        raise UserError("E0505", message, where=str(path)) from error


def records_for(tuning: Tuning, targets: Sequence[Target]) -> Tuning:
    """The part of `tuning` that compilations for `targets` can ask for."""
    sets = {machine_of(target).isa for target in targets if target.lanes > 1 and not target.arch.is_device}
    return Tuning({key: record for key, record in tuning.records.items() if set(key.split()[2:3]) <= sets})


def fingerprint(tuning: Tuning) -> str:
    """16 hex digits of all that the records say: equal ones make equal choices."""
    table = {key: _to_json(record) for key, record in tuning.records.items()}
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:16]


def _to_json(record: Record) -> dict[str, Any]:
    parameters = None if record.parameters is None else dict(record.parameters)
    return {"parameters": parameters, "gain": round(record.gain, 3)}


def _key(path: Path, key: str) -> str:
    if len(key) > _MOST_KEY:
        raise _damaged(path, "a key is too long")
    return key


def _record(path: Path, key: str, record: Any) -> Record:
    if not isinstance(record, dict) or record.keys() != {"parameters", "gain"}:
        raise _damaged(path, f"record `{key}` is not of parameters and gain")
    parameters, gain = record["parameters"], record["gain"]
    if type(gain) not in (int, float) or not 0 < gain < 1e6:
        raise _damaged(path, f"record `{key}` has no sensible gain")
    if parameters is not None and not (
        isinstance(parameters, dict) and all(type(value) in (int, str) for value in parameters.values())
    ):
        raise _damaged(path, f"record `{key}` has parameters that are no numbers or words")
    return Record(parameters, float(gain))


def _damaged(path: Path, why: str) -> UserError:
    hint = "delete it, and run `edgec tune` again"
    return UserError("E0508", f"this is no tuning database: {why}", where=str(path), hint=hint)
