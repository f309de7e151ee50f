# What `make install` puts where, and what `make deb` packs.
include(GNUInstallDirs)
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)  # tests need not be built for it

set(completions ${CMAKE_BINARY_DIR}/completions)
add_custom_command(OUTPUT ${completions}/trapline ${completions}/_trapline
  COMMAND ${CMAKE_COMMAND} -E make_directory ${completions}
  COMMAND sh -c "$<TARGET_FILE:trapline> completion bash >${completions}/trapline"
  COMMAND sh -c "$<TARGET_FILE:trapline> completion zsh >${completions}/_trapline"
  DEPENDS trapline VERBATIM)
add_custom_target(completions ALL DEPENDS ${completions}/trapline ${completions}/_trapline)

install(TARGETS trapline)
install(FILES ${PROJECT_SOURCE_DIR}/docs/trapline.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${completions}/trapline DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${completions}/_trapline DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${PROJECT_SOURCE_DIR}/README.md ${PROJECT_SOURCE_DIR}/SECURITY.md ${PROJECT_SOURCE_DIR}/packaging/copyright
        DESTINATION ${CMAKE_INSTALL_DOCDIR})
# A kernel for `trapline exec`, on hosts that have none to read.
install(PROGRAMS ${PROJECT_SOURCE_DIR}/scripts/guest-kernel.sh DESTINATION ${CMAKE_INSTALL_DATADIR}/trapline)
install(FILES ${PROJECT_SOURCE_DIR}/scripts/guest-packages.sh DESTINATION ${CMAKE_INSTALL_DATADIR}/trapline)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/docs DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md")

# A Debian package: `make deb`. What it depends on, dpkg-shlibdeps says.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR})
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "run x86 operating systems without hardware virtualization")
set(CPACK_PACKAGE_DESCRIPTION
    "A hypervisor for x86-64 machines that offer no hardware virtualization. It boots
unmodified x86 operating systems in an ordinary, unprivileged process tree, and
finds and explains the instructions that make that hard.")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_MAINTAINER "Trapline <trapline@localhost.invalid>")
set(CPACK_DEBIAN_PACKAGE_SECTION misc)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS gdb)
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/packaging/debian.cmake)
include(CPack)
