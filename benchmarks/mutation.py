"""How much of the verdict's code the unit tests watch: `make mutation` (QUICK=1: the module power alone).

mutmut changes one thing at a time in the modules that pyproject.toml names and runs the tests of the domain on each change,
in forked processes. A change that no test notices survives and is printed. A change that runs forever counts as noticed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ("flows.domain.power.*",)
NOTICED = {"killed", "timeout", "caught by type check", "segfault"}


def main() -> None:
    began, is_quick = time.monotonic(), os.environ.get("QUICK") == "1"
    shutil.rmtree(ROOT / "mutants", ignore_errors=True)
    wanted = SAMPLE if is_quick else ()
    mutmut("run", "--max-children", str(os.cpu_count() or 2), *wanted)
    found = statuses(wanted)
    console, counts = Console(width=120), Counter(found.values())
    for name in sorted(name for name, status in found.items() if status not in NOTICED):
        console.print(f"{found[name]}: {name}", markup=False, highlight=False)
        console.print(mutmut("show", name), markup=False, highlight=False)
    console.print(", ".join(f"{number} {status}" for status, number in counts.most_common()), highlight=False)
    killed = sum(number for status, number in counts.items() if status in NOTICED)
    result = {"killed": killed, "total": len(found), "seconds": round(time.monotonic() - began), "quick": is_quick}
    console.print("RESULT " + json.dumps(result), soft_wrap=True, highlight=False, markup=False)


def mutmut(*arguments: str) -> str:
    """What mutmut prints; its progress bar would bury the survivors."""
    command = [sys.executable, "-m", "mutmut", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"mutmut {arguments[0]} failed:\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}")
    return run.stdout


def statuses(wanted: tuple[str, ...]) -> dict[str, str]:
    """Each mutant's name and fate, of those that were wanted."""
    lines = (line.strip().rsplit(": ", 1) for line in mutmut("results", "--all", "true").splitlines() if ": " in line)
    prefixes = tuple(pattern.rstrip("*") for pattern in wanted)
    return {name: status for name, status in lines if not prefixes or name.startswith(prefixes)}


if __name__ == "__main__":
    main()
