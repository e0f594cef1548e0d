# The command, and the library with what a project of somebody else needs to find it: find_package(depthkv CONFIG).
include(CMakePackageConfigHelpers)
set(config_folder ${CMAKE_INSTALL_LIBDIR}/cmake/depthkv)

install(TARGETS depthkv EXPORT depthkv-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/depthkv DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT depthkv-targets NAMESPACE depthkv:: DESTINATION ${config_folder})
configure_package_config_file(cmake/depthkv-config.cmake.in depthkv-config.cmake INSTALL_DESTINATION ${config_folder})
write_basic_package_version_file(depthkv-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/depthkv-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/depthkv-config-version.cmake
  DESTINATION ${config_folder})

# The engine's libraries stay where they are.
set_target_properties(depthkv_cli PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
install(TARGETS depthkv_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
