# What profile cuda adds to LibTorch.cmake, by path as well: `libtorch` also brings libtorch_cuda, and two targets serve the few
# sources that call CUDA or NCCL themselves: `cuda_runtime` (headers, libcudart) and `nccl` (headers only: the trainer loads
# libnccl.so.2 at run time). Everybody else's compile flags stay those of profile cpu, so that ccache shares the objects.
#
# No find_package(CUDAToolkit): there is no toolkit. The headers and libraries are those of the wheels beside torch/.
set(LOCKSTEP_NCCL_DIR "" CACHE PATH "Folder that holds include/nccl.h and lib/libnccl.so.2 (empty: what scripts/setup chose)")
set(nvidia_dir ${torch_dir}/../nvidia)
set(nccl_dir "${LOCKSTEP_NCCL_DIR}")
set(remembered_file ${CMAKE_SOURCE_DIR}/build/nccl-dir) # Written by scripts/setup --nccl DIR.
if(NOT nccl_dir AND EXISTS ${remembered_file})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${remembered_file})
  file(STRINGS ${remembered_file} nccl_dir LIMIT_COUNT 1)
elseif(NOT nccl_dir)
  set(nccl_dir ${nvidia_dir}/nccl)
endif()

# first_file(VARIABLE what FILE…): the first of them that exists.
function(first_file variable what)
  foreach(file IN LISTS ARGN)
    if(EXISTS ${file})
      get_filename_component(file ${file} REALPATH)
      set(${variable} ${file} PARENT_SCOPE)
      return()
    endif()
  endforeach()
  message(FATAL_ERROR "No ${what} for the LibTorch in ${libtorch_dir}. Run scripts/setup --cuda, or choose --preset cpu.")
endfunction()
file(GLOB bundled_cudart ${torch_dir}/lib/libcudart*.so*) # A libtorch/ that came as a zip file has it there.
first_file(torch_cuda "libtorch_cuda.so" ${torch_dir}/lib/libtorch_cuda.so)
first_file(cuda_header "CUDA runtime headers" ${nvidia_dir}/cu13/include/cuda_runtime_api.h /usr/local/cuda/include/cuda_runtime_api.h)
first_file(cudart "libcudart.so.13" ${nvidia_dir}/cu13/lib/libcudart.so.13 ${bundled_cudart} /usr/local/cuda/lib64/libcudart.so.13)
first_file(nccl_header "nccl.h" ${nccl_dir}/include/nccl.h)
foreach(folder IN ITEMS lib lib64 lib/x86_64-linux-gnu)
  list(APPEND nccl_libraries ${nccl_dir}/${folder}/libnccl.so.2)
endforeach()
first_file(nccl_library "libnccl.so.2" ${nccl_libraries})
file(STRINGS ${nccl_header} version_lines REGEX "define NCCL_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+).*" "\\1.\\2.\\3" LOCKSTEP_NCCL_VERSION "${version_lines}")
get_filename_component(cuda_include_dir ${cuda_header} DIRECTORY)
get_filename_component(nccl_include_dir ${nccl_header} DIRECTORY)
get_filename_component(nccl_library_dir ${nccl_library} DIRECTORY)

# --no-as-needed: LibTorch's CUDA kernels register themselves when they are loaded; no symbol of theirs is referred to.
# NCCL before it, so that libtorch_cuda takes the one chosen here and not the one beside it.
set(needed "-Wl,--push-state,--no-as-needed")
string(APPEND needed ",${nccl_library},${torch_cuda},${torch_dir}/lib/libc10_cuda.so,--pop-state")
target_link_libraries(libtorch INTERFACE "${needed}")
target_link_options(libtorch INTERFACE -Wl,-rpath,${nccl_library_dir})
foreach(folder IN ITEMS cudnn nvshmem nccl cusparselt)
  target_link_options(libtorch INTERFACE -Wl,-rpath-link,${nvidia_dir}/${folder}/lib)
endforeach()

add_library(cuda_runtime INTERFACE)
target_include_directories(cuda_runtime SYSTEM INTERFACE ${cuda_include_dir})
target_link_libraries(cuda_runtime INTERFACE ${cudart})
add_library(nccl INTERFACE)
target_include_directories(nccl SYSTEM INTERFACE ${nccl_include_dir})
