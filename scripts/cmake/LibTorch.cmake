# Imports LibTorch as it lies in PyPI's `torch` wheel, by path, as the target `libtorch`.
#
# Not find_package(Torch): it defines an empty protobuf::libprotobuf that breaks gRPC's, searches the
# system for c10, and asks for a CUDA toolkit because the wheel is the CUDA build.
# The folder is a `pip install --target` folder: torch/ beside nvidia/. The libraries find each other by
# relative paths, so the layout must stay as it is.
set(LOCKSTEP_LIBTORCH_DIR "" CACHE PATH "Folder that holds torch/ and nvidia/ (scripts/setup makes it)")
if(NOT LOCKSTEP_LIBTORCH_DIR)
  if(DEFINED ENV{LOCKSTEP_CACHE})
    set(cache_dir $ENV{LOCKSTEP_CACHE})
  elseif(DEFINED ENV{XDG_CACHE_HOME})
    set(cache_dir $ENV{XDG_CACHE_HOME}/lockstep)
  else()
    set(cache_dir $ENV{HOME}/.cache/lockstep)
  endif()
  set(LOCKSTEP_LIBTORCH_DIR ${cache_dir}/libtorch-2.11.0)
endif()
set(torch_dir ${LOCKSTEP_LIBTORCH_DIR}/torch)
if(NOT EXISTS ${torch_dir}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "No LibTorch in ${LOCKSTEP_LIBTORCH_DIR}. Run scripts/setup, or pass "
                      "-DLOCKSTEP_LIBTORCH_DIR=DIR for one of your own.")
endif()
file(STRINGS ${torch_dir}/include/torch/headeronly/version.h version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR) ")
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" "\\1.\\2" torch_version "${version_lines}")
if(NOT torch_version STREQUAL "2.11")
  message(FATAL_ERROR "LibTorch in ${LOCKSTEP_LIBTORCH_DIR} is version ${torch_version}; Lockstep needs 2.11.")
endif()

add_library(libtorch INTERFACE)
target_include_directories(libtorch SYSTEM INTERFACE
  ${torch_dir}/include ${torch_dir}/include/torch/csrc/api/include)
target_link_libraries(libtorch INTERFACE ${torch_dir}/lib/libtorch_cpu.so ${torch_dir}/lib/libc10.so)
target_link_options(libtorch INTERFACE
  -Wl,-rpath,${torch_dir}/lib -Wl,-rpath-link,${torch_dir}/lib
  -Wl,-rpath-link,${LOCKSTEP_LIBTORCH_DIR}/nvidia/cu13/lib)
