# The pages: commands of the course and what they print, C blocks, options named, links, spelling.
# Nothing here depends on the compiler: once is enough.
[ "$BUILD" = build ] || exit 77
exec sh tools/check_docs.sh
