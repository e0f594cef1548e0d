# Writes OUTPUT, which defines depthkv::kSourcesHash: a hash of the files in SOURCES.
set(all "")
foreach(source ${SOURCES})
  file(SHA256 ${source} hash)
  string(APPEND all ${hash})
endforeach()
string(SHA256 hash "${all}")
string(SUBSTRING ${hash} 0 16 hash)
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "namespace depthkv {
extern const char* const kSourcesHash;
const char* const kSourcesHash = \"${hash}\";
}
")
