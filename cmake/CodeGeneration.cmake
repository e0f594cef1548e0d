# Same source, same bits: no fused multiply-adds that the source doesn't name, one instruction set on every machine.
# See docs/decisions/002-same-bits-everywhere.md.
add_library(depthkv_codegen INTERFACE)
target_compile_options(depthkv_codegen INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
if(DEPTHKV_ARCH AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  target_compile_options(depthkv_codegen INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=${DEPTHKV_ARCH}>)
endif()
if(DEPTHKV_SANITIZE)
  target_compile_options(depthkv_codegen INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${DEPTHKV_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all>)
  target_link_options(depthkv_codegen INTERFACE -fsanitize=${DEPTHKV_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND DEPTHKV_SANITIZE MATCHES "undefined")
    # A check before every access, which GCC takes long to compile. Null pointers stop a program under ASan as they are; the fuzzers,
    # which clang compiles, have all checks.
    target_compile_options(depthkv_codegen INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize=null,alignment,vptr>)
  endif()
endif()
if(DEPTHKV_FUZZ)
  target_compile_options(depthkv_codegen INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=fuzzer-no-link>)
endif()
