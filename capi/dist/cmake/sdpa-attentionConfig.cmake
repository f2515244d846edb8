# Defines sdpa::static, the archive that fits -mcpu, -mfloat-abi, -march and -mabi; sdpa::size, the same compiled for
# size; on the machine that made this tree sdpa::shared; and sdpa::sdpa, which is sdpa::static, or sdpa::shared if
# BUILD_SHARED_LIBS says so, or sdpa::size if the tree has no other. Where the options do not tell, set
# SDPA_ATTENTION_CORE and SDPA_ATTENTION_FLOAT_ABI to folders of lib/, for example cortex-m4 and hard-float.
cmake_policy(PUSH)
cmake_policy(VERSION 3.17)
include("${CMAKE_CURRENT_LIST_DIR}/archive.cmake")

if(NOT TARGET sdpa::sdpa)
  string(TOUPPER "${CMAKE_BUILD_TYPE}" _sdpa_type)
  get_directory_property(_sdpa_flags COMPILE_OPTIONS)
  string(CONCAT _sdpa_flags "${CMAKE_C_COMPILER_TARGET} ${CMAKE_CXX_COMPILER_TARGET} ${CMAKE_CXX_FLAGS} "
    "${CMAKE_C_FLAGS} ${CMAKE_C_FLAGS_${_sdpa_type}} ${_sdpa_flags}")
  set(_sdpa_host "${CMAKE_SYSTEM_PROCESSOR}-unknown-linux-gnu")
  if(SDPA_ATTENTION_CORE)
    set(_sdpa_static "${SDPA_ATTENTION_CORE}/${SDPA_ATTENTION_FLOAT_ABI}")
  elseif(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    set(_sdpa_static "${_sdpa_host}")
  else()
    sdpa_attention_core(_sdpa_core _sdpa_abi "${_sdpa_flags}")
    set(_sdpa_static "${_sdpa_core}/${_sdpa_abi}")
  endif()

  get_filename_component(_sdpa_include "${CMAKE_CURRENT_LIST_DIR}/../include" ABSOLUTE)
  set(_sdpa_size "${_sdpa_static}/size")
  set(_sdpa_default "")
  foreach(_sdpa_kind size static)
    sdpa_attention_archive(_sdpa_archive "${_sdpa_${_sdpa_kind}}")
    if(EXISTS "${_sdpa_archive}")
      add_library(sdpa::${_sdpa_kind} STATIC IMPORTED GLOBAL)
      set_target_properties(sdpa::${_sdpa_kind} PROPERTIES
        IMPORTED_LOCATION "${_sdpa_archive}" INTERFACE_INCLUDE_DIRECTORIES "${_sdpa_include}")
      set(_sdpa_default sdpa::${_sdpa_kind})
    endif()
  endforeach()
  if(NOT _sdpa_default)
    message(FATAL_ERROR "sdpa-attention: there is no ${_sdpa_archive}")
  endif()
  add_library(sdpa::sdpa INTERFACE IMPORTED GLOBAL)
  if(_sdpa_static STREQUAL _sdpa_host)
    file(GLOB _sdpa_shared "${CMAKE_CURRENT_LIST_DIR}/../lib/${_sdpa_host}/libsdpa-attention.so.*")
    get_filename_component(_sdpa_soname "${_sdpa_shared}" NAME)
    add_library(sdpa::shared SHARED IMPORTED GLOBAL)
    set_target_properties(sdpa::shared PROPERTIES
      IMPORTED_LOCATION "${_sdpa_shared}" IMPORTED_SONAME "${_sdpa_soname}"
      INTERFACE_INCLUDE_DIRECTORIES "${_sdpa_include}")
    if(BUILD_SHARED_LIBS)
      set(_sdpa_default sdpa::shared)
    endif()
  endif()
  set_target_properties(sdpa::sdpa PROPERTIES INTERFACE_LINK_LIBRARIES ${_sdpa_default})
endif()
cmake_policy(POP)
