# Debian's customs, in the tree that is to be packed: the manual page is compressed, zsh looks elsewhere, and modes do not
# depend on the packer's umask.
set(share ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/usr/share)
execute_process(COMMAND gzip -9nf ${share}/man/man1/trapline.1 COMMAND_ERROR_IS_FATAL ANY)
file(MAKE_DIRECTORY ${share}/zsh/vendor-completions)
file(RENAME ${share}/zsh/site-functions/_trapline ${share}/zsh/vendor-completions/_trapline)
file(REMOVE_RECURSE ${share}/zsh/site-functions)
execute_process(COMMAND chmod -R u=rwX,go=rX ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/usr COMMAND_ERROR_IS_FATAL ANY)
