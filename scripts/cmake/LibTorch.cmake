# Imports LibTorch as it lies in PyPI's `torch` wheel, by path, as the target `libtorch`.
#
# Not find_package(Torch): it defines an empty protobuf::libprotobuf that breaks gRPC's, searches the
# system for c10, and asks for a CUDA toolkit because the wheel is the CUDA build.
# The folder is a `pip install --target` folder: torch/ beside nvidia/; an unpacked libtorch/ does too. The libraries
# find each other by relative paths, so the layout must stay as it is.
set(LOCKSTEP_LIBTORCH_DIR "" CACHE PATH "Folder that holds torch/ (empty: what scripts/setup chose)")
set(libtorch_dir "${LOCKSTEP_LIBTORCH_DIR}")
set(remembered_file ${CMAKE_SOURCE_DIR}/build/libtorch-dir) # Written by scripts/setup --libtorch DIR.
if(NOT libtorch_dir AND EXISTS ${remembered_file})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${remembered_file})
  file(STRINGS ${remembered_file} libtorch_dir LIMIT_COUNT 1)
elseif(NOT libtorch_dir)
  if(NOT "$ENV{LOCKSTEP_CACHE}" STREQUAL "")
    set(cache_dir $ENV{LOCKSTEP_CACHE})
  elseif(NOT "$ENV{XDG_CACHE_HOME}" STREQUAL "")
    set(cache_dir $ENV{XDG_CACHE_HOME}/lockstep)
  else()
    set(cache_dir $ENV{HOME}/.cache/lockstep)
  endif()
  set(libtorch_dir ${cache_dir}/libtorch-2.11.0)
endif()
set(torch_dir ${libtorch_dir}/torch)
if(NOT EXISTS ${torch_dir})
  set(torch_dir ${libtorch_dir})
endif()
set(version_header ${torch_dir}/include/torch/headeronly/version.h)
if(NOT EXISTS ${torch_dir}/lib/libtorch_cpu.so OR NOT EXISTS ${version_header})
  message(FATAL_ERROR "No LibTorch 2.11 in ${libtorch_dir}. Run scripts/setup, or scripts/setup --libtorch DIR for one of your own.")
endif()
file(STRINGS ${version_header} version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR) ")
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" "\\1.\\2" torch_version "${version_lines}")
set(LOCKSTEP_TORCH_VERSION ${torch_version})
if(NOT torch_version STREQUAL "2.11")
  message(FATAL_ERROR "LibTorch in ${libtorch_dir} is version ${torch_version}; Lockstep needs 2.11.")
endif()

add_library(libtorch INTERFACE)
target_include_directories(libtorch SYSTEM INTERFACE
  ${torch_dir}/include ${torch_dir}/include/torch/csrc/api/include)
target_link_libraries(libtorch INTERFACE ${torch_dir}/lib/libtorch_cpu.so ${torch_dir}/lib/libc10.so)
target_link_options(libtorch INTERFACE
  -Wl,-rpath,${torch_dir}/lib -Wl,-rpath-link,${torch_dir}/lib
  -Wl,-rpath-link,${torch_dir}/../nvidia/cu13/lib)
if(LOCKSTEP_PROFILE STREQUAL "cuda")
  include(Cuda)
endif()
