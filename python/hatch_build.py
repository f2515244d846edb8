"""Compiles the C library for the wheel, whose tag is py3-none-PLATFORM: the library knows nothing of CPython's ABI.

Environment, for wheels of other platforms (see Makefile):

    SDPA_TARGET     the Rust target; the host without it
    SDPA_PLATFORM   the platform of the tag; that of this Python without it
"""

import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent.parent
# What cargo calls the library, and its name in the package.
LIBRARIES = {
    "linux": ("libsdpa_capi.so", "libsdpa-attention.so"),
    "windows": ("sdpa_capi.dll", "sdpa-attention.dll"),
    "darwin": ("libsdpa_capi.dylib", "libsdpa-attention.dylib"),
}


def host() -> str:
    lines = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    return next(line[len("host: ") :] for line in lines if line.startswith("host: "))


class CustomBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        target = os.environ.get("SDPA_TARGET")
        compiled, packaged = next(names for system, names in LIBRARIES.items() if system in (target or host()))
        folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        command = ["cargo", "rustc", "--quiet", "--manifest-path", "capi/Cargo.toml", "--profile", "capi"]
        command += ["--features", "capi", "--crate-type", "cdylib", "--target-dir", str(folder)]
        environment = dict(os.environ)
        if target:
            command += ["--target", target]
            folder /= target
        if "windows" in (target or ""):
            environment["CARGO_PROFILE_CAPI_LTO"] = "fat"  # as capi/Makefile does
        try:
            subprocess.run(command, check=True, cwd=ROOT, env=environment)
        except FileNotFoundError:
            raise SystemExit("sdpa: this builds a Rust library, and there is no cargo: install Rust") from None
        platform = os.environ.get("SDPA_PLATFORM", sysconfig.get_platform())
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + platform.replace("-", "_").replace(".", "_")
        build_data["force_include"][str(folder / "capi" / compiled)] = "sdpa/" + packaged
        for licence in "LICENSE-APACHE", "LICENSE-MIT":
            build_data["force_include"][str(ROOT / licence)] = "sdpa/" + licence
