#!/bin/sh
# maps.sh TREE: build systems find in TREE, whole or in part, the archive that fits, and fail where none does.
#
# * CMake itself links an image for the options of a core, by find_package and by add_subdirectory.
# * zephyr/CMakeLists.txt and ESP-IDF's run in CMake with stubs of the functions of these systems, which print what they
#   are given: neither system is here. Kconfig is read by kconfiglib, where Python has it.
# * PlatformIO's look-up is its own code, where Python has platformio; its platforms are not here.
# * Arduino's is written down here, as its library specification has it: arduino-cli is not here.
set -eu
cd "$(dirname "$0")/.."
capi=$PWD
tree=$(realpath "$1")
bin=$tree.work/maps
rm -rf "$bin"
mkdir -p "$bin"
fail() {
    echo "maps.sh: $*" >&2
    exit 1
}
must_fail() {
    words=$1
    shift
    if output=$("$@" 2>&1); then fail "this was to fail, and passed: $*"; fi
    echo "$output" | tr -s ' \n' ' ' | grep -q "$words" || fail "failed otherwise: $* $output"
    echo "fails as it must: $words"
}
archive=libsdpa-attention.a
has() { [ -f "$tree/lib/$1/$archive" ] || { echo "not in this tree: $1" && return 1; }; }

# ---- CMake ----
for way in package subdirectory; do
    mkdir "$bin/$way"
    case $way in
    package) find="find_package(sdpa-attention 0.1 REQUIRED)" ;;
    subdirectory) find="add_subdirectory($tree sdpa)" ;;
    esac
    cat >"$bin/$way/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.17)
project(consume C)
$find
add_executable(main main.c)
target_link_libraries(main PRIVATE sdpa::\${KIND})
END
    cat >"$bin/$way/main.c" <<END
#include <sdpa.h>
int main(void) {
    float a[3] = {1, 2, 3}, out;
    return sdpa_dot(a, a, 3, &out) != SDPA_OK;
}
END
done
# configure WAY COMPILER OPTION…
configure() {
    way=$1 compiler=$2
    shift 2
    rm -rf "$bin/build"
    cmake -S "$bin/$way" -B "$bin/build" -DCMAKE_PREFIX_PATH="$tree" -DCMAKE_C_COMPILER="$compiler" "$@"
}
# board WAY KIND FLAG…: for a microcontroller.
board() {
    way=$1 kind=$2
    shift 2
    compiler=arm-none-eabi-gcc
    case $* in *rv32*) compiler=riscv64-unknown-elf-gcc ;; esac
    configure "$way" $compiler -DCMAKE_SYSTEM_NAME=Generic -DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY -DKIND="$kind" \
        -DCMAKE_C_FLAGS="$* -ffreestanding" -DCMAKE_EXE_LINKER_FLAGS="-nostdlib -Wl,-e,main -Wl,-z,noexecstack"
}
# links FOLDER KIND FLAG…: an image for these options links the archive in that folder.
links() {
    folder=$1 kind=$2
    shift 2
    has "$folder" || return 0
    for way in package subdirectory; do
        { board $way "$kind" "$@" && cmake --build "$bin/build"; } >"$bin/said.txt" 2>&1 ||
            fail "$way, $*: $(cat "$bin/said.txt")"
        grep -q " $tree/lib/$folder/$archive\b" "$bin/build/CMakeFiles/main.dir/link.txt" ||
            fail "$way, $*: not $folder: $(cat "$bin/build/CMakeFiles/main.dir/link.txt")"
    done
    echo "CMake, $*: $folder"
}
m4="-mcpu=cortex-m4 -mthumb"
links cortex-m0plus/soft-float/size size -mcpu=cortex-m0 -mthumb
links cortex-m0plus/soft-float static -mcpu=cortex-m0plus -mthumb -mfloat-abi=soft
links cortex-m0plus/soft-float static -mcpu=cortex-m23 -mthumb
links cortex-m3/soft-float static -mcpu=cortex-m3 -mthumb
links cortex-m4/hard-float sdpa $m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard
links cortex-m4/softfp-float sdpa $m4 -mfpu=fpv4-sp-d16 -mfloat-abi=softfp
links cortex-m4/softfp-float static -mfloat-abi=hard $m4 -mfpu=fpv4-sp-d16 -mfloat-abi=softfp
links cortex-m4/soft-float static $m4
links cortex-m4/soft-float static -mcpu=cortex-m4+nofp -mthumb -mfloat-abi=softfp
links cortex-m4/hard-float/size size $m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard
links cortex-m7/hard-float static -mcpu=cortex-m7 -mthumb -mfpu=fpv5-d16 -mfloat-abi=hard
links cortex-m33/softfp-float static -mcpu=cortex-m33+nodsp -mthumb -mfpu=fpv5-sp-d16 -mfloat-abi=softfp
links cortex-m33/hard-float static -mcpu=cortex-m55+nomve -mthumb -mfloat-abi=hard
links cortex-m55/hard-float static -mcpu=cortex-m55 -mthumb -mfloat-abi=hard
links rv32imc/soft-float static -march=rv32imc -mabi=ilp32
links rv32imac/soft-float static -march=rv32imac_zicsr_zifencei -mabi=ilp32
links rv32imac/soft-float static -march=rv32imafc -mabi=ilp32
links rv32imafc/hard-float static -march=rv32imafc -mabi=ilp32f
must_fail "no library for the options .*cortex-a9" board package sdpa -mcpu=cortex-a9
must_fail "no library for the options .*rv32im " board package sdpa -march=rv32im -mabi=ilp32
must_fail "no library for the options .*ilp32d" board package sdpa -march=rv32imafdc -mabi=ilp32d
must_fail "no library for the options" board package sdpa -mthumb
must_fail "there is no .*/lib/absent/hard-float/$archive" configure package cc \
    -DSDPA_ATTENTION_CORE=absent -DSDPA_ATTENTION_FLOAT_ABI=hard-float
host=$(rustc -vV | sed -n 's/^host: //p')
if has "$host"; then
    for kind in static shared sdpa; do
        { configure package cc -DKIND=$kind && cmake --build "$bin/build" && "$bin/build/main"; } >"$bin/said.txt" ||
            fail "$kind: $(cat "$bin/said.txt")"
    done
    echo "CMake, this machine: static and shared"
fi

# ---- Zephyr ----
mkdir "$bin/zephyr"
cat >"$bin/zephyr/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.20)
project(zephyr NONE)
function(zephyr_include_directories)
  message(STATUS "include: \${ARGV}")
endfunction()
function(zephyr_library_import name archive)
  message(STATUS "import: \${name} \${archive}")
  add_library(\${name} STATIC IMPORTED GLOBAL)
endfunction()
add_subdirectory($tree/zephyr module)
END
# zephyr FOLDER SETTING…
zephyr() {
    folder=$1
    shift
    has "$folder" || return 0
    rm -rf "$bin/build"
    cmake -S "$bin/zephyr" -B "$bin/build" -DCONFIG_SDPA_ATTENTION=y "$@" >"$bin/said.txt" 2>&1 ||
        { cat "$bin/said.txt" && return 1; }
    grep -qx -- "-- import: sdpa_attention $tree/lib/$folder/$archive" "$bin/said.txt" ||
        { cat "$bin/said.txt" && return 1; }
    grep -qx -- "-- include: $tree/include" "$bin/said.txt" || { cat "$bin/said.txt" && return 1; }
    echo "Zephyr, $*: $folder"
}
zephyr cortex-m4/hard-float -DCONFIG_ARM=y -DGCC_M_CPU=cortex-m4 -DCONFIG_FPU=y -DCONFIG_FP_HARDABI=y
zephyr cortex-m4/softfp-float -DCONFIG_ARM=y -DGCC_M_CPU=cortex-m4 -DCONFIG_FPU=y -DCONFIG_FP_SOFTABI=y
zephyr cortex-m4/soft-float -DCONFIG_ARM=y -DGCC_M_CPU=cortex-m4
zephyr cortex-m0plus/soft-float/size -DCONFIG_ARM=y -DGCC_M_CPU=cortex-m0 -DCONFIG_SDPA_ATTENTION_SIZE=y
zephyr cortex-m33/hard-float -DCONFIG_ARM=y -DGCC_M_CPU=cortex-m33+nodsp -DCONFIG_FPU=y -DCONFIG_FP_HARDABI=y
zephyr rv32imac/soft-float -DCONFIG_RISCV=y -DCONFIG_RISCV_ISA_EXT_A=y -DCONFIG_RISCV_ISA_EXT_C=y
zephyr rv32imafc/hard-float -DCONFIG_RISCV=y -DCONFIG_RISCV_ISA_EXT_A=y -DCONFIG_RISCV_ISA_EXT_C=y \
    -DCONFIG_RISCV_ISA_EXT_F=y -DCONFIG_FLOAT_HARD=y
any=$(cd "$tree/lib" && dirname "$(find . -path '*-float*' -name $archive | LC_ALL=C sort | head -n 1)" | sed 's/^..//')
must_fail "no library for the options .*cortex-a53" zephyr "$any" -DCONFIG_ARM=y -DGCC_M_CPU=cortex-a53
must_fail "no library for the options .*rv64" zephyr "$any" -DCONFIG_RISCV=y -DCONFIG_64BIT=y
must_fail "no library for the options .*ilp32d" zephyr "$any" -DCONFIG_RISCV=y -DCONFIG_RISCV_ISA_EXT_C=y \
    -DCONFIG_FLOAT_HARD=y -DCONFIG_CPU_HAS_FPU_DOUBLE_PRECISION=y
rm -rf "$bin/build"
cmake -S "$bin/zephyr" -B "$bin/build" -DCONFIG_SDPA_ATTENTION=y -DCONFIG_ARM=y -DGCC_M_CPU=cortex-m0 \
    -DCONFIG_SDPA_ATTENTION_CARGO=y -DCONFIG_SDPA_ATTENTION_SOURCE="$capi/.." -DCONFIG_SDPA_ATTENTION_SIZE=y >"$bin/said.txt"
built=$(sed -n 's/^-- import: sdpa_attention //p' "$bin/said.txt")
cmake --build "$bin/build" --target sdpa_attention_cargo >"$bin/said.txt" 2>&1 || fail "$(cat "$bin/said.txt")"
[ -s "$built" ] || fail "cargo inside the build makes no $built"
compared="an archive"
if has cortex-m0plus/soft-float/size; then
    compared="the same bytes"
    cmp "$built" "$tree/lib/cortex-m0plus/soft-float/size/$archive" || fail "cargo inside the build makes other bytes"
fi
echo "Zephyr, cargo inside the build: $compared"
if python3 -c 'import kconfiglib' 2>/dev/null; then
    printf 'config ARM\n\tdef_bool y\nconfig RISCV\n\tbool\nsource "%s"\n' "$tree/zephyr/Kconfig" >"$bin/Kconfig"
    kconfig() {
        python3 - "$bin/Kconfig" "$@" <<'END'
import sys, kconfiglib
config = kconfiglib.Kconfig(sys.argv[1], warn_to_stderr=False)
for setting in sys.argv[2:]:
    name, value = setting.split("=")
    assert config.syms[name].set_value(value), setting
    assert config.syms[name].str_value == value, f"{setting} is not possible"
print(*(s.name for s in config.unique_defined_syms if s.str_value == "y"))
END
    }
    kconfig SDPA_ATTENTION=y | grep -qx "ARM SDPA_ATTENTION SDPA_ATTENTION_PREBUILT" || fail "Kconfig: prebuilt is no default"
    kconfig SDPA_ATTENTION=y SDPA_ATTENTION_CARGO=y SDPA_ATTENTION_SIZE=y |
        grep -qx "ARM SDPA_ATTENTION SDPA_ATTENTION_CARGO SDPA_ATTENTION_SIZE" || fail "Kconfig: the choice is none"
    must_fail "SDPA_ATTENTION_CARGO=y is not possible" kconfig SDPA_ATTENTION_CARGO=y
    echo "Kconfig: the choice is one"
else
    echo "NOT RUN: Kconfig (no kconfiglib)"
fi

# ---- ESP-IDF ----
mkdir "$bin/idf"
cat >"$bin/idf/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.20)
project(idf C)
set(ESP_PLATFORM 1)
function(idf_component_register)
  message(STATUS "register: \${ARGV}")
  add_library(component INTERFACE)
  set(COMPONENT_LIB component PARENT_SCOPE)
endfunction()
function(add_prebuilt_library name archive)
  message(STATUS "prebuilt: \${name} \${archive}")
  add_library(\${name} STATIC IMPORTED GLOBAL)
endfunction()
add_subdirectory($tree component)
END
idf() {
    folder=$1 chip=$2
    has "$folder" || return 0
    rm -rf "$bin/build"
    cmake -S "$bin/idf" -B "$bin/build" -DIDF_TARGET="$chip" >"$bin/said.txt" 2>&1 || { cat "$bin/said.txt" && return 1; }
    grep -qx -- "-- prebuilt: sdpa_attention $tree/lib/$folder/$archive" "$bin/said.txt" ||
        { cat "$bin/said.txt" && return 1; }
    echo "ESP-IDF, $chip: $folder"
}
idf rv32imc/soft-float esp32c3
idf rv32imac/soft-float esp32c6
idf rv32imafc/hard-float esp32p4
must_fail "no library for esp32s3" idf "$any" esp32s3
for chip in $(sed -n 's/^targets: \[\(.*\)\]/\1/p' "$tree/idf_component.yml" | tr -d ,); do
    rm -rf "$bin/build"
    cmake -S "$bin/idf" -B "$bin/build" -DIDF_TARGET="$chip" >"$bin/said.txt" 2>&1 || fail "idf_component.yml: $chip has no library"
done

# ---- Arduino: src/MCU/FPU-ABI, where FPU and ABI are what follows -mfpu= and -mfloat-abi=, or else src/MCU ----
[ -f "$tree/src/sdpa.h" ] && grep -qx "precompiled=full" "$tree/library.properties" &&
    grep -qx "ldflags=-lsdpa-attention" "$tree/library.properties" || fail "Arduino finds no library"
# arduino FOLDER MCU FLAG…
arduino() {
    folder=$1 mcu=$2
    shift 2
    has "$folder" || return 0
    specs=$(for option in -mfpu -mfloat-abi; do
        for flag in "$@"; do case $flag in $option=*) echo "${flag#*=}" && break ;; esac; done
    done | paste -sd -)
    place=$tree/src/$mcu/$specs
    [ -n "$specs" ] && [ -d "$place" ] || place=$tree/src/$mcu
    cmp "$place/$archive" "$tree/lib/$folder/$archive" || return 1
    echo "Arduino, $mcu $*: $folder"
}
arduino cortex-m0plus/soft-float cortex-m0plus
arduino cortex-m4/hard-float cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard
arduino cortex-m4/softfp-float cortex-m4 -mfloat-abi=softfp -mfpu=fpv4-sp-d16
arduino cortex-m7/hard-float cortex-m7 -mfpu=fpv5-d16 -mfloat-abi=hard
arduino cortex-m33/softfp-float cortex-m33 -mfpu=fpv5-sp-d16 -mfloat-abi=softfp
arduino rv32imc/soft-float esp32c3
must_fail "No such file" arduino "$any" esp32s3

# ---- PlatformIO: src/MCU or src/CORE, whatever the FPU ----
if python3 -c 'import platformio.builder.tools.piolib' 2>/dev/null; then
    platformio() {
        folder=$1
        has "$folder" || return 0
        place=$(python3 - "$tree" "$2" "$3" <<'END'
import sys
from platformio.builder.tools.piolib import ArduinoLibBuilder
tree, mcu, cpu = sys.argv[1:]
class Env: # of SCons
    paths, board = [], {"build.mcu": mcu, "build.cpu": cpu}
    def BoardConfig(self): return self.board
    def PrependUnique(self, LIBPATH): self.paths.append(LIBPATH)
class Library(ArduinoLibBuilder):
    def __init__(self):
        self.path, self.env = tree, Env()
        self._manifest = self.load_manifest()
library = Library()
assert "-lsdpa-attention" in library.build_flags
print(*library.env.paths)
END
)
        cmp "$place/$archive" "$tree/lib/$folder/$archive" || return 1
        echo "PlatformIO, $2 $3: $folder"
    }
    platformio cortex-m4/hard-float stm32f407vgt6 cortex-m4
    platformio cortex-m0plus/soft-float samd21g18a cortex-m0plus
    platformio rv32imac/soft-float esp32c6 ""
    must_fail "No such file" platformio "$any" atmega328p avr
else
    echo "NOT RUN: PlatformIO (no platformio with scons)"
fi
echo "maps.sh: all of it passed"
