# Warnings are errors in our own code; foreign headers are system headers. -Wrestrict is wrong about std::string in GCC 12 (bug 105651),
# and -Wmaybe-uninitialized about std::regex and std::optional where sanitizers change the code (bug 105562). -Wpsabi minds vectors passed
# by value where DEPTHKV_ARCH lacks AVX; ours never leave a source. -Wsubobject-linkage takes the sources of a unity build for headers.
set(warnings -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wcast-align -Woverloaded-virtual -Wimplicit-fallthrough)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND warnings -Wno-restrict -Wno-psabi)
  if(CMAKE_UNITY_BUILD)
    list(APPEND warnings -Wno-subobject-linkage)
  endif()
  if(DEPTHKV_SANITIZE)
    list(APPEND warnings -Wno-maybe-uninitialized)
  endif()
endif()

add_library(depthkv_warnings INTERFACE)
target_compile_options(depthkv_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:${warnings} -Werror>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Werror --Werror=all-warnings>)
