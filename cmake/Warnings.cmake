# Warnings are errors in our own code; foreign headers are system headers. -Wrestrict is wrong about std::string in GCC 12 (bug 105651),
# and -Wmaybe-uninitialized about std::regex and std::optional where sanitizers change the code (bug 105562).
add_library(depthkv_warnings INTERFACE)
target_compile_options(depthkv_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wcast-align
    -Woverloaded-virtual -Wimplicit-fallthrough
    $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
    $<$<AND:$<CXX_COMPILER_ID:GNU>,$<BOOL:${DEPTHKV_SANITIZE}>>:-Wno-maybe-uninitialized> -Werror>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Werror --Werror=all-warnings>)
