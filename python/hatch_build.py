"""Builds the C library into the wheel, whose tag is py3-none-PLATFORM: the library knows nothing of CPython's ABI.

Environment, for wheels of other platforms (see Makefile):

    SDPA_TARGET     the Rust target; the host without it
    SDPA_PLATFORM   the platform of the tag; that of this Python without it
    CC              the C compiler, which links the library
"""

import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent.parent


class CustomBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        target = os.environ.get("SDPA_TARGET", "")
        made = "sdpa-attention.dll" if "windows" in target else "libsdpa-attention.so"
        file = Path("build", target, made)
        command = ["make", "-s", "-C", str(ROOT / "capi"), str(file)]
        command += [f"{name}={value}" for name, value in (("TARGET", target), ("CC", os.environ.get("CC"))) if value]
        try:
            subprocess.run(command, check=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"sdpa: the C library was not built; it wants Rust, cc, make and ar: {error}") from None
        platform = os.environ.get("SDPA_PLATFORM", sysconfig.get_platform())
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + platform.replace("-", "_").replace(".", "_")
        build_data["force_include"][str(ROOT / "capi" / file)] = f"sdpa/{made}"
        for licence in "LICENSE-APACHE", "LICENSE-MIT":
            build_data["force_include"][str(ROOT / licence)] = f"sdpa/{licence}"
