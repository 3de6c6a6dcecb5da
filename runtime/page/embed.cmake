# Writes the files of the page as arrays of a C header. Called with -D for FOLDER, which has them,
# and OUTPUT.
set(text "/* Made of the files of the page. */\n")
foreach(name html css js)
  file(READ ${FOLDER}/page.${name} bytes HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
  string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" bytes "${bytes}")
  string(APPEND text "static const unsigned char page_${name}[] = {\n${bytes}};\n")
endforeach()
file(WRITE ${OUTPUT} "${text}")
