"""
Fetch the source distributions of the installed uvicorn and Starlette, and run their websocket tests bare and guarded.

It needs the packages that those tests import (``make transparency`` installs them) and a package index. It exits with 1
when a test passes bare and fails guarded, unless `ON_PURPOSE` says why.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

SUITES = {
    "uvicorn": ["tests/protocols/test_websocket.py"],
    "starlette": [
        "tests/test_websockets.py",
        "tests/test_testclient.py",
        "tests/test_endpoints.py",
        "tests/test_routing.py",
    ],
}
ON_PURPOSE = {
    "test_server_multiple_websocket_http_response_start_events": "G7: our error, which names state and allowed types",
    "test_duplicate_disconnect": "G8: a second receive after the client left is no more than a disconnect",
}


def main() -> int:
    """Run both suites twice, print the difference, and give the exit status."""
    surprises: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for package, files in SUITES.items():
            tree = _fetch(package, Path(folder))
            bare, guarded = (
                _failures(tree, files, []),
                _failures(tree, files, ["-p", "guard_everything"]),
            )
            print(f"{package} {importlib.metadata.version(package)}: {bare[0]} bare; {guarded[0]} guarded")
            for test in sorted(guarded[1] - bare[1]):
                reason = next((why for name, why in ON_PURPOSE.items() if name in test), None)
                print(f"  {test}: {reason or 'NOT TRANSPARENT'}")
                surprises |= set() if reason else {test}
    return 1 if surprises else 0


def _fetch(package: str, folder: Path) -> Path:
    wanted = f"{package}=={importlib.metadata.version(package)}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", wanted]
    subprocess.run(pip, cwd=folder, check=True)
    archive = next(folder.glob(f"{package}-*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def _failures(tree: Path, files: list[str], options: list[str]) -> tuple[str, set[str]]:
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-W", "ignore", "-o", "addopts=", *options, *files]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    finished = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    output = finished.stdout
    if finished.returncode not in (0, 1):
        raise RuntimeError(f"the tests of {tree.name} did not run: {output}{finished.stderr}")
    return output.strip().splitlines()[-1], set(re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE))


if __name__ == "__main__":
    sys.exit(main())
