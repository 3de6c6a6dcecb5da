# Writes pdt_version.h, at every build, because a commit changes it; the file is touched only when
# its text changes. Called with -D for PDT_VERSION, PDT_COMPILER, PDT_BUILD_TYPE, PDT_SANITIZERS,
# SOURCE_DIR and OUTPUT.
set(PDT_GIT "")
find_program(GIT git)
if(GIT)
  execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} describe --tags --always --dirty
    OUTPUT_VARIABLE PDT_GIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
configure_file(${CMAKE_CURRENT_LIST_DIR}/pdt_version.h.in ${OUTPUT} @ONLY)
