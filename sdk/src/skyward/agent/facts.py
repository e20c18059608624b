"""What this machine is, told to the operator once per connection."""

import contextlib
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Mapping
from typing import Any

_GPU_TIMEOUT = 10.0
_GPU_FIELDS = "index,name,uuid,memory.total,driver_version"


def facts() -> dict[str, Any]:
    """Host name, processors, memory, Python and GPUs. What cannot be found out is 0 or empty."""
    return {
        "hostname": socket.gethostname(),
        "cpus": _cpus(),
        "memory_bytes": _memory(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "gpus": _gpus(),
    }


def visible_gpus(known: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that workers may use: those that the agent was limited to, else all that the facts name."""
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        if name in environment:
            return tuple(word.strip() for word in environment[name].split(",") if word.strip())
    return tuple(str(gpu["index"]) for gpu in known["gpus"])


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 0


def _memory() -> int:
    with contextlib.suppress(ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0


def _gpus() -> list[dict[str, Any]]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, timeout=_GPU_TIMEOUT, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [gpu for line in answer.stdout.splitlines() if (gpu := parse_gpu(line)) is not None]


def parse_gpu(line: str) -> dict[str, Any] | None:
    """One line of nvidia-smi's CSV, or None if it says something else (an error, a warning)."""
    values = [value.strip() for value in line.split(",")]
    if len(values) != len(_GPU_FIELDS.split(",")) or not values[0].isdigit():
        return None
    index, name, uuid, memory, driver = values
    return {
        "index": int(index),
        "name": name,
        "uuid": uuid,
        "memory_mib": int(memory) if memory.isdigit() else 0,  # "[N/A]" where memory is shared with the CPU
        "driver": driver,
    }
