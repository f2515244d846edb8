# `make dist`: one tree of the library for every core below, and what build systems want beside it. Included by
# ../Makefile.
#
#   make dist                                      everything, into build/dist
#   make dist CORES="cortex-m4 cortex-m0plus"      these cores, without the library of this machine
#   make dist ARCHIVES="cortex-m4/hard-float rv32imac/soft-float/size"   these archives
#
# Every archive is a target of its own. What make finds in the tree it does not build again: remove the tree to
# build what has changed.

DIST ?= build/dist

# rustc's target of a core and float ABI, and its options. On Cortex-M4, M7 and M33 the CPU is not named: rustc would
# use the multiply-accumulate of two roundings, which is slower (docs/firmware.md).
RUSTC-cortex-m0plus/soft-float := thumbv6m-none-eabi
RUSTC-cortex-m3/soft-float     := thumbv7m-none-eabi
RUSTC-cortex-m4/hard-float     := thumbv7em-none-eabihf
RUSTC-cortex-m4/softfp-float   := thumbv7em-none-eabi -Ctarget-feature=+vfp4d16sp
RUSTC-cortex-m4/soft-float     := thumbv7em-none-eabi
RUSTC-cortex-m7/hard-float     := $(RUSTC-cortex-m4/hard-float)
RUSTC-cortex-m7/softfp-float   := $(RUSTC-cortex-m4/softfp-float)
RUSTC-cortex-m7/soft-float     := $(RUSTC-cortex-m4/soft-float)
RUSTC-cortex-m33/hard-float    := thumbv8m.main-none-eabihf
RUSTC-cortex-m33/softfp-float  := thumbv8m.main-none-eabi -Ctarget-feature=+fp-armv8d16sp
RUSTC-cortex-m33/soft-float    := thumbv8m.main-none-eabi
RUSTC-cortex-m55/hard-float    := thumbv8m.main-none-eabihf -Ctarget-cpu=cortex-m55
RUSTC-cortex-m55/softfp-float  := thumbv8m.main-none-eabi -Ctarget-cpu=cortex-m55
RUSTC-cortex-m55/soft-float    := $(RUSTC-cortex-m33/soft-float)
RUSTC-rv32imc/soft-float       := riscv32imc-unknown-none-elf
RUSTC-rv32imac/soft-float      := riscv32imac-unknown-none-elf
RUSTC-rv32imafc/hard-float     := riscv32imafc-unknown-none-elf

ABIS := $(sort $(patsubst RUSTC-%,%,$(filter RUSTC-%,$(.VARIABLES))))
CORES ?= host $(sort $(foreach abi,$(ABIS),$(firstword $(subst /, ,$(abi)))))
ARCHIVES ?= $(foreach core,$(CORES),$(if $(filter host,$(core)),host,$(foreach abi,\
    $(or $(filter $(core)/%,$(ABIS)),$(error dist: there is no core $(core))),$(abi) $(abi)/size)))

# Where Arduino looks, below src/, and whose archive is there. Arduino adds what follows -mfpu= and -mfloat-abi= to the
# MCU, if that folder exists; PlatformIO takes the MCU, or the core, and never looks at the FPU: it gets the ABI
# that most boards with the core have.
ARDUINO := cortex-m0plus=cortex-m0plus/soft-float cortex-m3=cortex-m3/soft-float \
    $(foreach core,cortex-m4 cortex-m7 cortex-m33 cortex-m55,$(core)=$(core)/hard-float) \
    $(foreach core,cortex-m4 cortex-m7 cortex-m33 cortex-m55,$(core)/soft=$(core)/soft-float) \
    $(foreach abi,hard softfp,$(foreach fpu,cortex-m4/fpv4-sp-d16 cortex-m7/fpv4-sp-d16 cortex-m7/fpv5-sp-d16 \
        cortex-m7/fpv5-d16 cortex-m33/fpv5-sp-d16 cortex-m55/auto,$(fpu)-$(abi)=$(firstword $(subst /, ,$(fpu)))/$(abi)-float)) \
    $(foreach mcu,esp32c2 esp32c3,$(mcu)=rv32imc/soft-float) \
    $(foreach mcu,esp32c5 esp32c6 esp32c61 esp32h2,$(mcu)=rv32imac/soft-float) esp32p4=rv32imafc/hard-float

.PHONY: dist dist-archives dist-host dist-files
# Archives of one target follow each other in one folder of cargo's.
.NOTPARALLEL:

dist-archives: $(foreach archive,$(filter-out host,$(ARCHIVES)),$(DIST)/lib/$(archive)/$(LIBRARY).a)
	$(if $(filter host,$(ARCHIVES)),$(MAKE) dist-host)

# A file that tells rustc's words about the FPU of softfp, which it passes on without knowing it, from other warnings.
KNOWN := /^warning: unknown and unstable feature specified for .-Ctarget-feature.: .\(vfp4d16sp\|fp-armv8d16sp\)/,/= help/d

$(DIST)/lib/%/$(LIBRARY).a:
	$(if $(RUSTC-$(@:$(DIST)/lib/%/$(LIBRARY).a=%))$(RUSTC-$(@:$(DIST)/lib/%/size/$(LIBRARY).a=%)),,$(error dist: there is no archive $*))
	@mkdir -p $(@D) $(DIST).work
	RUSTFLAGS='$(wordlist 2,9,$(RUSTC-$(*:/size=)))' $(MAKE) -s static TARGET=$(firstword $(RUSTC-$(*:/size=))) \
	    LEVEL=$(if $(filter %/size,$*),s,3) BUILD=$(DIST).work/$* 2>$(DIST).work/said || { cat $(DIST).work/said >&2; exit 1; }
	@sed '$(KNOWN); /^$$/d' $(DIST).work/said >$(DIST).work/unknown; cat $(DIST).work/unknown >&2; test ! -s $(DIST).work/unknown
	cp $(DIST).work/$*/$(LIBRARY).a $@

dist-host:
	RUSTFLAGS= $(MAKE) -s all BUILD=$(DIST).work/host
	@mkdir -p $(DIST)/lib/$(HOST)
	cp $(DIST).work/host/$(LIBRARY).a $(DIST)/lib/$(HOST)/
	cp $(DIST).work/host/$(LIBRARY).so $(DIST)/lib/$(HOST)/$(SONAME)

# The licences of all that may be linked into an archive: the crates', and those of Rust's own libraries.
CRATES = $(shell $(CARGO) tree --quiet --manifest-path Cargo.toml --features capi --edges normal --target all --prefix none \
    --format '{p}' | sed -n '/^sdpa/!s/^\(.*\) v\([0-9.]*\).*/\1-\2/p' | sort -u)
REGISTRY = $(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src

dist-files: dist-archives
	@mkdir -p $(DIST)/include $(DIST)/src $(DIST)/cmake $(DIST)/zephyr $(DIST)/licenses
	cp include/sdpa.h $(DIST)/include/
	cp include/sdpa.h $(DIST)/src/
	cp ../LICENSE-APACHE ../LICENSE-MIT $(DIST)/
	cp dist/CMakeLists.txt dist/README.md $(DIST)/
	cp dist/cmake/*.cmake $(DIST)/cmake/
	cp dist/zephyr/* $(DIST)/zephyr/
	sed $(PATHS) cmake/$(NAME)ConfigVersion.cmake.in >$(DIST)/cmake/$(NAME)ConfigVersion.cmake
	sed $(PATHS) dist/library.properties.in >$(DIST)/library.properties
	sed $(PATHS) dist/idf_component.yml.in >$(DIST)/idf_component.yml
	@for entry in $(ARDUINO); do \
	    archive=$(DIST)/lib/$${entry#*=}/$(LIBRARY).a; to=$(DIST)/src/$${entry%%=*}; \
	    if [ -f $$archive ]; then mkdir -p $$to && cp $$archive $$to/ || exit 1; fi; \
	done
	@for crate in $(CRATES); do \
	    mkdir -p $(DIST)/licenses/$$crate; \
	    cp $$(ls -d $(REGISTRY)/*/$$crate | head -n 1)/*LICENSE* $(DIST)/licenses/$$crate/ || exit 1; \
	done
	@mkdir -p $(DIST)/licenses/rust && cp $(SYSROOT)/share/doc/rust/COPYRIGHT-library.html $(DIST)/licenses/rust/

dist: dist-files
	cd $(DIST) && find . -type f ! -name SHA256SUMS | LC_ALL=C sort | xargs sha256sum >SHA256SUMS
